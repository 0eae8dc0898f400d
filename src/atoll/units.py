"""Quantities, durations and timestamps: one reading of each for every floor.

Timestamps on the wire are UTC. Docker writes nine fractional digits (RFC 3339 with nanoseconds), Kubernetes whole seconds (metav1.Time) or
six digits (metav1.MicroTime).
"""

from __future__ import annotations

import re
import time
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from atoll.errors import InvalidInput

NS = 1_000_000_000
_BYTES = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(?:i?b)?$", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_DURATION_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3600 * NS}
_QUANTITY = re.compile(r"^([+-]?[0-9.]+)([eE][+-]?[0-9]{1,3}|[KMGTPE]i|[numkMGTPE]?)$", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_bytes(text: str) -> int:
    """Docker's sizes, powers of 1024: "512", "64m", "1.5g", "2GiB" to bytes. Raises InvalidInput."""
    match = _BYTES.match(text.strip())
    if not match:
        raise InvalidInput(f"invalid size: '{text}': write a number and a unit such as 512m or 2g")
    return int(Decimal(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_duration(text: str) -> int:
    """Go's durations: "1h30m", "10s", "1.5ms", "-2s" to nanoseconds. Raises InvalidInput."""
    body = text[1:] if text[:1] in "+-" else text
    if body == "0":
        return 0
    total, end = Decimal(0), 0
    for match in _DURATION.finditer(body):
        if match.start() != end:
            break
        total += Decimal(match[1].rstrip(".") or "0") * _DURATION_NS[match[2]]
        end = match.end()
    if not body or end != len(body):
        raise InvalidInput(f'invalid duration "{text}": write for instance 10s, 1m30s or 500ms')
    return -int(total) if text[:1] == "-" else int(total)


def format_duration(ns: int) -> str:
    """As Go's time.Duration prints: 1h0m0s, 1.5s, 200ms; 0s for none."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if ns < size * 1_000:
            return f"{sign}{ns / size:g}{unit}"
    minutes, rest = divmod(ns, 60 * NS)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / NS:.9f}".rstrip("0").rstrip(".") + "s"
    return sign + (f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds)


def parse_quantity(text: str | float) -> Decimal:
    """A Kubernetes quantity ("100m", "1.5Gi", "1e3", 2) as an exact number. Raises InvalidInput (apimachinery, resource.Quantity)."""
    return _quantity(str(text))


@lru_cache(maxsize=1024)  # a cluster's pods ask for the same few
def _quantity(text: str) -> Decimal:
    match = _QUANTITY.match(text)
    if not match:
        raise InvalidInput(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        )
    try:
        number = Decimal(match[1])
    except InvalidOperation as error:
        raise InvalidInput(f"unable to parse quantity's value: {text!r}") from error
    suffix = match[2]
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return number.scaleb(int(suffix[1:]))
    return number.scaleb(_DECIMAL[suffix])


def timestamp(now_ns: int | None = None) -> str:
    """Docker's form: 2026-01-02T03:04:05.123456789Z."""
    ns = time.time_ns() if now_ns is None else now_ns
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // NS)) + f".{ns % NS:09d}Z"


def timestamp_seconds(now: float | None = None) -> str:
    """metav1.Time: 2026-01-02T03:04:05Z."""
    return _second(int(time.time() if now is None else now))


@lru_cache(maxsize=4)  # each write of the API server has one or two, most of them this second's
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def timestamp_micro(now_ns: int | None = None) -> str:
    """metav1.MicroTime: 2026-01-02T03:04:05.123456Z."""
    ns = time.time_ns() if now_ns is None else now_ns
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // NS)) + f".{ns % NS // 1000:06d}Z"
