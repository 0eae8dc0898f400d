"""Moments as clients write them: Unix seconds with a fraction, RFC 3339 with or without its zone, or a Go duration back from now."""

from __future__ import annotations

import datetime as dt
import re
import time

from atoll import units
from atoll.errors import InvalidInput

_SECONDS = re.compile(r"-?([0-9]{1,12})(?:\.([0-9]{1,20}))?", re.ASCII)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}(?::[0-9]{2}){0,2})(?:\.([0-9]{1,20}))?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?", re.ASCII
)


def parse_moment(text: str, now_ns: int | None = None) -> int:
    """Nanoseconds since 1970. Raises InvalidInput."""
    if match := _SECONDS.fullmatch(text):
        moment = int(match[1]) * units.NS + _fraction(match[2])
        return -moment if text.startswith("-") else moment
    if match := _RFC3339.fullmatch(text):
        clock = match[2] or "00:00:00"
        clock += ":00" * (2 - clock.count(":"))
        zone = (match[4] or "Z").upper().replace("Z", "+00:00")
        try:
            parsed = dt.datetime.fromisoformat(f"{match[1]}T{clock}{zone}")
        except ValueError as error:
            raise InvalidInput(f'invalid time "{text}": {error}') from error
        return int(parsed.timestamp()) * units.NS + _fraction(match[3])
    return (time.time_ns() if now_ns is None else now_ns) - units.parse_duration(text)


def _fraction(digits: str | None) -> int:
    return int((digits or "0").ljust(9, "0")[:9])
