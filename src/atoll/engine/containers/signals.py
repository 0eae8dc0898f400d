"""Signals by the names and numbers users give them."""

from __future__ import annotations

import re
import signal as signals

from atoll.errors import InvalidInput

_REAL_TIME = re.compile(r"RTMIN\+([0-9]{1,2})|RTMAX-([0-9]{1,2})", re.ASCII)


def parse_signal(text: str) -> int:
    """The number of "SIGTERM", "TERM", "15", "RTMIN+3", "RTMAX-1". Raises InvalidInput with Docker's words."""
    bare = text.strip().upper().removeprefix("SIG")
    number = _number(bare)
    if number is not None and 0 < number <= signals.SIGRTMAX:
        return number
    raise InvalidInput(f"invalid signal: {text}")


def _number(bare: str) -> int | None:
    if match := _REAL_TIME.fullmatch(bare):
        found = signals.SIGRTMIN + int(match[1]) if match[1] else signals.SIGRTMAX - int(match[2])
        return found if found >= signals.SIGRTMIN else None
    if bare.isascii() and bare.isdigit():
        return int(bare[:3])
    try:
        return int(signals.Signals[f"SIG{bare}"])
    except KeyError:
        return None
