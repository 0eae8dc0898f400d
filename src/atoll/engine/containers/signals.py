"""Signals by the names and numbers users give them."""

from __future__ import annotations

import signal as signals

from atoll.errors import InvalidInput


def parse_signal(text: str) -> int:
    """The number of "SIGTERM", "TERM", "15", "RTMIN+3". Raises InvalidInput with Docker's words."""
    bare = text.strip().upper().removeprefix("SIG")
    if bare.isdigit() and 0 < int(bare) <= 64:
        return int(bare)
    base, _, offset = bare.partition("+")
    if base == "RTMIN" and offset.isdigit():
        return int(signals.SIGRTMIN) + int(offset)
    try:
        return int(signals.Signals[f"SIG{bare}"])
    except KeyError:
        raise InvalidInput(f"invalid signal: {text}") from None
