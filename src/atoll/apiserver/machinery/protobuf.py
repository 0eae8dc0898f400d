"""Kubernetes' protobuf bodies to objects: what kubectl's `create` commands and client-go's typed clients send.

A body is four magic bytes and a runtime.Unknown: apiVersion, kind and the object's own message. The field numbers are facts of the upstream
types, kept in one table (`protobuf.bin`, made by packaging/protobuf-table); this module only walks the wire format with it. Answers are
JSON to all that accept it; `protobuf_encode.py` is for those that do not.

The wire carries every plain field, zero or not. As upstream's decoding into structs and encoding as JSON does, zeros of fields that JSON
omits are left out, those of optional (pointer) fields are kept: `replicas: 0` is not the same as none.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.machinery import statuses
from atoll.errors import StatusError
from atoll.units import NS, format_duration, timestamp_micro, timestamp_seconds

MAGIC = b"k8s\0"
DEPTH_MAX = 200
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_MAX = 10  # bytes
_SIGN = 1 << 63


class Field(NamedTuple):
    name: str  # "" when the message's fields stand beside its own
    what: int | str  # another type's number, or the name of a scalar
    container: str  # "", "list" or "map"
    keeps_zero: bool


class Table(NamedTuple):
    roots: dict[str, int]
    types: list[dict[int, Field]]

    def root(self, api_version: str, kind: str) -> int | None:
        """The number of a kind's type; some, as Status, are the same in every group."""
        return self.roots.get(f"{api_version} {kind}", self.roots.get(f" {kind}"))


@lru_cache(maxsize=1)
def table() -> Table:
    packed = resources.files(__package__).joinpath("protobuf.bin").read_bytes()
    content = orjson.loads(zlib.decompress(packed))
    return Table(content["roots"], [{row[0]: Field(*row[1:]) for row in rows} for rows in content["types"]])


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """The object of a body. Raises StatusError 400 for what is not such a body, 415 for a kind that is not in the table."""
    if not body.startswith(MAGIC):
        raise statuses.bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        unknown = {number: value for number, _, value in _fields(memoryview(body)[len(MAGIC) :])}
        type_meta = {number: bytes(value).decode() for number, _, value in _fields(unknown.get(1, memoryview(b"")))}
        api_version, kind = type_meta.get(1, ""), type_meta.get(2, "")
        known = table()
        root = known.root(api_version, kind)
        if root is None:
            raise statuses.unsupported_media_type(f"{api_version} {kind} is not read as protobuf: send application/json")
        return {"kind": kind, "apiVersion": api_version, **_message(known, root, unknown.get(2, memoryview(b"")), 0)}
    except (ValueError, IndexError, struct.error, TypeError, AttributeError) as error:
        raise _bad(str(error)) from None


def _message(known: Table, number: int, data: memoryview, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise _bad(f"nested deeper than {DEPTH_MAX}")
    fields = known.types[number]
    result: dict[str, Any] = {}
    for tag, wire, raw in _fields(data):
        field = fields.get(tag)
        if field is None:  # of a later release: left out, as Go does
            continue
        if field.container == "map":
            entry = {t: (w, v) for t, w, v in _fields(raw)}
            key = bytes(entry[1][1]).decode() if 1 in entry else ""
            result.setdefault(field.name, {})[key] = _value(known, field.what, *entry.get(2, (_BYTES, memoryview(b""))), depth)
        elif field.container == "list":
            if wire == _BYTES and field.what in ("int", "bool"):  # packed
                result.setdefault(field.name, []).extend(_packed(raw, field.what))
            else:
                result.setdefault(field.name, []).append(_value(known, field.what, wire, raw, depth))
        else:
            value = _value(known, field.what, wire, raw, depth)
            if not field.name:
                result.update(value)
            elif field.keeps_zero or value not in (None, "", 0, False, {}, []):
                result[field.name] = value
    return result


def _value(known: Table, what: int | str, wire: int, raw: Any, depth: int) -> Any:
    if isinstance(what, int):
        return _message(known, what, raw, depth + 1)
    match what:
        case "string":
            return bytes(raw).decode()
        case "int":
            return _signed(raw)
        case "bool":
            return bool(raw)
        case "double":
            return struct.unpack("<d", struct.pack("<Q", raw))[0] if wire == _FIXED64 else struct.unpack("<f", struct.pack("<I", raw))[0]
        case "bytes":
            return base64.b64encode(raw).decode()
    parts = {number: value for number, _, value in _fields(raw)}
    match what:
        case "quantity":
            return bytes(parts.get(1, b"")).decode()
        case "intorstring":
            return bytes(parts.get(3, b"")).decode() if parts.get(1) else _signed(parts.get(2, 0))
        case "time":
            return timestamp_seconds(_signed(parts.get(1, 0))) if parts else None
        case "microtime":
            return timestamp_micro(_signed(parts.get(1, 0)) * NS + _signed(parts.get(2, 0))) if parts else None
        case "duration":
            return format_duration(_signed(parts.get(1, 0)))
        case "json":
            return orjson.loads(parts[1]) if parts.get(1) else None
        case "items":
            return [bytes(value).decode() for number, _, value in _fields(raw) if number == 1]
    raise ValueError(f"no reading of {what}")


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Field number, wire type and value: an int, or a view of the bytes. Raises ValueError for what is not the wire format."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if length > end - at:
                raise ValueError("unexpected EOF")
            value, at = data[at : at + length], at + length
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            if size > end - at:
                raise ValueError("unexpected EOF")
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise ValueError(f"illegal wireType {wire}")
        yield tag >> 3, wire, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_MAX):
        byte = data[at + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value & (2 * _SIGN - 1), at + index + 1
    raise ValueError("integer overflow")


def _packed(data: memoryview, what: int | str) -> Iterator[int | bool]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield bool(value) if what == "bool" else _signed(value)


def _signed(value: int) -> int:
    return value - 2 * _SIGN if value & _SIGN else value


def _bad(why: str) -> StatusError:
    return statuses.bad_request(f"the protobuf body cannot be read: {why}")
