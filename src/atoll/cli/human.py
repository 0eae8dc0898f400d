"""Sizes, ages and moments for people, in Docker's words (go-units)."""

from __future__ import annotations

import time

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _scaled(value: float, base: float, units: tuple[str, ...], digits: int) -> str:
    index = 0
    while value >= base and index < len(units) - 1:
        value /= base
        index += 1
    return f"{value:.{digits}g}{units[index]}" if value < 10**digits else f"{value:.0f}{units[index]}"


def size(count: float, digits: int = 3) -> str:
    """1234567 bytes read 1.23MB: powers of 1000."""
    return _scaled(float(count), 1000.0, DECIMAL, digits)


def binary_size(count: float) -> str:
    """1048576 bytes read 1MiB: powers of 1024."""
    return _scaled(float(count), 1024.0, BINARY, 4)


def duration(seconds: float) -> str:
    """Give "5 seconds", "About a minute", "3 weeks": go-units' HumanDuration."""
    seconds = int(seconds)
    minutes, hours = seconds // 60, seconds / 3600
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    rounded = int(hours + 0.5)
    if rounded == 1:
        return "About an hour"
    if rounded < 48:
        return f"{rounded} hours"
    for limit, unit, name in ((24 * 7 * 2, 24, "days"), (24 * 30 * 2, 24 * 7, "weeks"), (24 * 365 * 2, 24 * 30, "months")):
        if rounded < limit:
            return f"{int(hours // unit)} {name}"
    return f"{int(hours // (24 * 365))} years"


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time such as the engine sends; 0 for the zero time."""
    if not text or text.startswith("0001-"):
        return 0.0
    body = text.rstrip("Z")
    offset = 0
    if len(body) > 6 and body[-6] in "+-" and body[-3] == ":":
        sign = 1 if body[-6] == "+" else -1
        offset = sign * (int(body[-5:-3]) * 3600 + int(body[-2:]) * 60)
        body = body[:-6]
    whole, _, fraction = body.partition(".")
    date, _, clock = whole.partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    hour, minute, second = (int(part) for part in clock.split(":"))
    import calendar

    return calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0)) - offset + (float("0." + fraction) if fraction else 0.0)


def ago(seconds_since_epoch: float) -> str:
    return f"{duration(max(0.0, time.time() - seconds_since_epoch))} ago"


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]
