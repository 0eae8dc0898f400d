"""Objects to Kubernetes' protobuf, for clients that accept nothing else: objects, lists and the frames of a watch.

Whoever takes JSON too gets JSON, whose bytes are at hand; a protobuf body is made anew each time. The numbers are those of `protobuf.py`'s
table. A list is its metadata and its items in every kind; a frame of a watch is four bytes of length and a WatchEvent with the object's
own body in it (apimachinery, runtime/serializer/protobuf and streaming).
"""

from __future__ import annotations

import datetime as dt
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.protobuf import MAGIC, Field, Table, table
from atoll.apiserver.machinery.protobuf_wire import integer, nested, text
from atoll.units import NS

Object = Mapping[str, Any]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def is_encodable(api_version: str, kind: str) -> bool:
    return table().root(api_version, kind) is not None


def encode_object(obj: Object) -> bytes:
    """Raises StatusError 406 for a kind that has no protobuf form."""
    return _unknown(obj["apiVersion"], obj["kind"], _root(obj["apiVersion"], obj["kind"], obj))


def encode_list(head: Object, item_kind: str, items: Sequence[Object]) -> bytes:
    """`head` is the list without its items."""
    metadata = head["metadata"]
    told = text(2, metadata["resourceVersion"]) + text(3, metadata.get("continue", ""))
    if "remainingItemCount" in metadata:
        told += integer(4, metadata["remainingItemCount"])
    return _unknown(
        head["apiVersion"],
        head["kind"],
        nested(1, told) + b"".join(nested(2, _root(head["apiVersion"], item_kind, item)) for item in items),
    )


def encode_frame(event: str, obj: Object) -> bytes:
    """One event of a watch."""
    body = text(1, event) + nested(2, nested(1, encode_object(obj)))
    return len(body).to_bytes(4, "big") + body


def _unknown(api_version: str, kind: str, raw: bytes) -> bytes:
    """runtime.Unknown: what the object is, and the object; contentEncoding and contentType are empty."""
    return MAGIC + nested(1, text(1, api_version) + text(2, kind)) + nested(2, raw) + nested(3, b"") + nested(4, b"")


def _root(api_version: str, kind: str, obj: Object) -> bytes:
    found = table()
    number = found.root(api_version, kind)
    if number is None:
        raise statuses.not_acceptable("application/json, application/yaml")
    return _message(found, number, obj)


def _message(known: Table, number: int, obj: Object) -> bytes:
    parts = []
    for tag, field in known.types[number].items():
        if not field.name:  # its fields stand beside our own
            assert isinstance(field.what, int)
            inner = _message(known, field.what, obj)
            if inner:
                parts.append(nested(tag, inner))
            continue
        value = obj.get(field.name)
        if value is None:
            continue
        if field.container == "list":
            parts += [_field(known, tag, field, each) for each in value]
        elif field.container == "map":
            parts += [nested(tag, nested(1, key.encode()) + _field(known, 2, field, each)) for key, each in sorted(value.items())]
        else:
            parts.append(_field(known, tag, field, value))
    return b"".join(parts)


def _field(known: Table, tag: int, field: Field, value: Any) -> bytes:
    if isinstance(field.what, int):
        return nested(tag, _message(known, field.what, value))
    match field.what:
        case "int" | "bool":
            return integer(tag, int(value))
        case "string":
            return nested(tag, value.encode())
        case "bytes":
            return nested(tag, b64decode(value))
        case "quantity":
            return nested(tag, nested(1, str(value).encode()))
        case "intorstring":
            is_text = isinstance(value, str)
            parts = integer(1, is_text), integer(2, 0 if is_text else value), nested(3, value.encode() if is_text else b"")
            return nested(tag, b"".join(parts))
        case "time" | "microtime":
            micros = (dt.datetime.fromisoformat(value) - _EPOCH) // _MICROSECOND
            seconds, rest = divmod(micros, 1_000_000)
            return nested(tag, integer(1, seconds) + integer(2, rest * (NS // 1_000_000)))
        case "json":
            return nested(tag, nested(1, orjson.dumps(value)))
        case "items":
            return nested(tag, b"".join(nested(1, each.encode()) for each in value))
    raise ValueError(f"no writing of {field.what}")
