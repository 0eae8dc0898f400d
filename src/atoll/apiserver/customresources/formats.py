"""The string and number formats that schemas may ask for; a format that is not here is a remark and nothing is checked, as upstream."""

from __future__ import annotations

import binascii
import ipaddress
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

Format = Callable[[Any], bool]

_UUID = r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"
_DATE_TIME = re.compile(r"(?i)(\d{4}-\d\d-\d\d)[t ](\d\d:\d\d:\d\d)(\.\d{1,12})?(z|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"[+-]?(?:\d{1,19}(?:\.\d{1,19})?(?:ns|us|µs|ms|s|m|h|d|w)){1,12}|0")
_HOSTNAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"


def _matches(pattern: str) -> Format:
    match = re.compile(pattern).fullmatch
    return lambda value: match(value) is not None


def _parses(parse: Callable[[str], object]) -> Format:
    def check(value: Any) -> bool:
        try:
            parse(value)
        except (ValueError, OverflowError, binascii.Error):
            return False
        return True

    return check


def _date_time(text: str) -> None:
    match = _DATE_TIME.fullmatch(text)
    if not match:
        raise ValueError(text)
    datetime.fromisoformat(f"{match[1]}T{match[2]}")


def _date(text: str) -> None:
    if len(text) != 10:
        raise ValueError(text)
    date.fromisoformat(text)


def _mac(text: str) -> None:
    if not re.fullmatch(r"(?i)[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}(?:(?:\1[0-9a-f]{2}){2})?", text):
        raise ValueError(text)


def _cidr(text: str) -> None:
    if "/" not in text:
        raise ValueError(text)
    ipaddress.ip_network(text, strict=False)


def _uri(text: str) -> None:
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")) or any(letter <= " " for letter in text):
        raise ValueError(text)


def _email(text: str) -> None:
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain or any(letter in " \t\n<>(),;\\" for letter in text):
        raise ValueError(text)


def _in_range(bits: int) -> Format:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return lambda value: isinstance(value, int | float) and low <= value <= high


_STRINGS: dict[str, Format] = {
    "bsonobjectid": _matches("[0-9a-fA-F]{24}"),
    "uri": _parses(_uri),
    "email": _parses(_email),
    "hostname": _matches(_HOSTNAME.pattern),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(_cidr),
    "mac": _parses(_mac),
    "uuid": _matches(_UUID % ("[0-9a-f]", "[0-9a-f]")),
    "uuid3": _matches(_UUID % ("3", "[0-9a-f]")),
    "uuid4": _matches(_UUID % ("4", "[89ab]")),
    "uuid5": _matches(_UUID % ("5", "[89ab]")),
    "byte": _parses(lambda text: b64decode(text, validate=True)),
    "date": _parses(_date),
    "date-time": _parses(_date_time),
    "datetime": _parses(_date_time),
    "duration": _matches(_DURATION.pattern),
    "k8s-short-name": _matches(_LABEL),
    "k8s-long-name": _matches(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*"),
}
_NUMBERS = {"int32": _in_range(32), "int64": _in_range(64)}


def format_check(name: str) -> Format | None:
    """Whether a value has the format; values of other types than the format's have it."""
    if name in _STRINGS:
        has_it = _STRINGS[name]
        return lambda value: not isinstance(value, str) or has_it(value)
    if name in _NUMBERS:
        in_range = _NUMBERS[name]
        return lambda value: isinstance(value, bool) or not isinstance(value, int | float) or in_range(value)
    return None
