"""What the server makes up.

Names are a base and five characters, in upstream's alphabet (no vowels, nothing that looks like another); uids are random.
"""

from __future__ import annotations

import os

BASE_MAX = 58  # 63, a DNS label, less the suffix
SUFFIX = 5
_UIDS_AT_ONCE = 64
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def generate_name(base: str) -> str:
    return base[:BASE_MAX] + random_suffix()


def random_suffix() -> str:
    return "".join([_ALPHABET[byte % len(_ALPHABET)] for byte in os.urandom(SUFFIX)])


class Uids:
    """Random UUIDs (RFC 9562, version 4), from the kernel's randomness fetched for many at a time: each fetch gives up the interpreter's
    lock, which a busy loop then waits for.
    """

    def __init__(self) -> None:
        self._random = b""

    def __call__(self) -> str:
        if not self._random:
            self._random = os.urandom(_UIDS_AT_ONCE * 16)
        taken, self._random = self._random[-16:], self._random[:-16]
        number = int.from_bytes(taken) & ~(0xF000C000 << 48) | 0x40008000 << 48
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
