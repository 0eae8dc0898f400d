"""Names the server makes up: a base and five characters, in upstream's alphabet (no vowels, nothing that looks like another)."""

from __future__ import annotations

import os

BASE_MAX = 58  # 63, a DNS label, less the suffix
SUFFIX = 5
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def generate_name(base: str) -> str:
    return base[:BASE_MAX] + random_suffix()


def random_suffix() -> str:
    return "".join([_ALPHABET[byte % len(_ALPHABET)] for byte in os.urandom(SUFFIX)])
