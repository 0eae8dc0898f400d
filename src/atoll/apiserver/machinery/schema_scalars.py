"""The leaves of types: strings, numbers, quantities, times. Each has a quick check and a cleaning reading, as `schema_types` describes."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from atoll.apiserver.machinery.kind import Cause, Shape
from atoll.apiserver.machinery.quantities import canonical
from atoll.apiserver.machinery.schema_types import Anything, DecodeError, Node, Where, json_kind
from atoll.errors import InvalidInput


class Scalar:
    """`clean` returns the canonical value, or raises TypeError for a wrong JSON type and DecodeError for a wrong value."""

    shape: Shape = "scalar"

    def __init__(self, go_type: str, accepts: Callable[[Any], bool], clean: Callable[[Any], Any]) -> None:
        self.go_type = go_type
        self.accepts = accepts
        self._clean = clean

    def take(self, value: Any, where: Where, unknown: list[str]) -> Any:
        try:
            return self._clean(value)
        except TypeError:
            raise where.mismatch(value, self.go_type) from None

    def missing(self, value: Any, path: str, causes: list[Cause]) -> None:
        pass


def _is_string(value: Any) -> bool:
    return type(value) is str


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _is_bool(value: Any) -> bool:
    return value is True or value is False


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _is_int32(value: Any) -> bool:
    return type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF


def _int32(value: Any) -> int:
    if not _is_int32(value):
        raise TypeError
    return int(value)


def _is_int64(value: Any) -> bool:
    return type(value) is int and -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF


def _int64(value: Any) -> int:
    if not _is_int64(value):
        raise TypeError
    return int(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _number(value: Any) -> float:
    if not _is_number(value):
        raise TypeError
    return value  # type: ignore[no-any-return]


def _is_bytes(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        b64decode(value, validate=True)
    except ValueError:
        return False
    return True


def _bytes(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    text = value.replace("\n", "").replace("\r", "")  # Go's decoder skips line ends
    try:
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", text)
        raise DecodeError(f"illegal base64 data at input byte {bad.start() if bad else len(text)}") from None
    return text


def _is_quantity(value: Any) -> bool:
    try:
        return type(value) is str and canonical(value) == value
    except InvalidInput:
        return False


def _quantity(value: Any) -> str:
    if type(value) is str:
        text = value.strip()
    elif type(value) in (int, float):
        text = orjson.dumps(value).decode()
    else:
        raise DecodeError("unable to parse quantity's suffix" if isinstance(value, bool | dict | list) else "quantity is not a string")
    try:
        return canonical(text)
    except InvalidInput as error:
        raise DecodeError(str(error)) from None


def _is_int_or_string(value: Any) -> bool:
    return type(value) is str or _is_int32(value)


def _int_or_string(value: Any) -> int | str:
    if not _is_int_or_string(value):
        raise DecodeError(f"json: cannot unmarshal {json_kind(value, 'int32')} into Go value of type int32")
    return value  # type: ignore[no-any-return]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_ANY_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _is_time(value: Any) -> bool:
    return type(value) is str and _TIME.fullmatch(value) is not None and _parsed(value, "") is not None


def _is_micro_time(value: Any) -> bool:
    return type(value) is str and _MICRO_TIME.fullmatch(value) is not None and _parsed(value, "") is not None


def _parsed(text: str, layout: str) -> datetime | None:
    match = _ANY_TIME.fullmatch(text)
    try:
        if not match:
            raise ValueError
        fraction = (match[2] or ".0")[:7].ljust(7, "0")
        return datetime.fromisoformat(f"{match[1].upper()}{fraction}{match[3].upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        if layout:
            raise DecodeError(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"') from None
        return None


def _time(value: Any) -> str:
    moment = _parsed(_string(value), "2006-01-02T15:04:05Z07:00")
    assert moment
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(value: Any) -> str:
    moment = _parsed(_string(value), "2006-01-02T15:04:05.000000Z07:00")
    assert moment
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


SCALARS: dict[str, Node] = {
    "string": Scalar("string", _is_string, _string),
    "bool": Scalar("bool", _is_bool, _bool),
    "int32": Scalar("int32", _is_int32, _int32),
    "int64": Scalar("int64", _is_int64, _int64),
    "double": Scalar("float64", _is_number, _number),
    "bytes": Scalar("[]uint8", _is_bytes, _bytes),
    "quantity": Scalar("resource.Quantity", _is_quantity, _quantity),
    "intstr": Scalar("intstr.IntOrString", _is_int_or_string, _int_or_string),
    "time": Scalar("v1.Time", _is_time, _time),
    "microtime": Scalar("v1.MicroTime", _is_micro_time, _micro_time),
    "object": Anything(only_objects=True),
    "any": Anything(only_objects=False),
}
