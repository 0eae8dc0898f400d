"""--chmod: octal ("755") or symbolic ("u=rwX,go-w"), as chmod(1) reads them."""

from __future__ import annotations

import re
from collections.abc import Callable

from atoll.errors import InvalidInput

Change = Callable[[int, bool], int]
"""From a mode and whether it is a directory's to the new mode."""

MODE_MAX = 0o7777
CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)$")
ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
SHIFTS = {"u": 6, "g": 3, "o": 0}
SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0o1000}


def octal_mode(text: str) -> int | None:
    """None for what is none."""
    return int(text, 8) if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= MODE_MAX else None


def read_mode(text: str) -> Change:
    """Raises InvalidInput."""
    wanted = octal_mode(text)
    if wanted is not None:
        return lambda _mode, _is_directory: wanted
    clauses = [CLAUSE.match(part) for part in text.split(",")]
    if not all(clauses) or not text:
        raise InvalidInput(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic as in u=rwX,go=rX"
        )
    steps = [(match[1], action[1], action[2]) for match in clauses if match for action in ACTION.finditer(match[2])]

    def change(mode: int, is_directory: bool) -> int:
        for who, operator, permissions in steps:
            mode = _applied(mode, who or "a", operator, permissions, is_directory=is_directory)
        return mode

    return change


def _applied(mode: int, who: str, operator: str, permissions: str, *, is_directory: bool) -> int:
    for one in "ugo" if "a" in who else who:
        shift = SHIFTS[one]
        bits = _bits(mode, one, permissions, is_directory=is_directory)
        if operator == "+":
            mode |= bits
        elif operator == "-":
            mode &= ~bits
        else:
            kept = SPECIAL[one] if is_directory and one != "o" else 0  # chmod(1) leaves a directory's set-id bits alone
            mode = mode & ~((0o7 << shift) | (SPECIAL[one] & ~kept)) | bits
    return mode


def _bits(mode: int, one: str, permissions: str, *, is_directory: bool) -> int:
    if permissions and permissions in SHIFTS:
        return (mode >> SHIFTS[permissions] & 0o7) << SHIFTS[one]
    plain = sum({"r": 4, "w": 2, "x": 1}.get(char, 0) for char in set(permissions) - {"X"})
    if "X" in permissions and (is_directory or mode & 0o111):
        plain |= 1
    bits = plain << SHIFTS[one]
    if "s" in permissions and one in "ug":
        bits |= SPECIAL[one]
    if "t" in permissions and one == "o":
        bits |= SPECIAL["o"]
    return bits
