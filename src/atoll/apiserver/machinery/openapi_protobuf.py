"""An OpenAPI v2 document as the protobuf message openapi.v2.Document, the one form in which kubectl asks for it.

The field numbers are those of the public message types. Only what our own documents contain is written; a map is a list of named entries,
an extension or a default carries its value as YAML text, of which JSON is a part.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import orjson

from atoll.apiserver.machinery.protobuf_wire import integer, nested, text, varint

_SCHEMA_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_SCHEMA_INTEGERS = {
    "exclusiveMaximum": 8,
    "exclusiveMinimum": 10,
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "uniqueItems": 16,
    "maxProperties": 17,
    "minProperties": 18,
}
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def encode_swagger(document: Mapping[str, Any]) -> bytes:
    info = text(1, document["info"]["title"]) + text(2, document["info"]["version"])
    paths = b"".join(_named(2, path, _path_item(item)) for path, item in document["paths"].items())
    definitions = b"".join(_named(1, name, _schema(schema)) for name, schema in document["definitions"].items())
    return text(1, document["swagger"]) + nested(2, info) + nested(8, paths) + nested(9, definitions)


def _path_item(item: Mapping[str, Any]) -> bytes:
    operations = b"".join(nested(number, _operation(item[method])) for method, number in _METHODS.items() if method in item)
    return operations + b"".join(_parameter(9, each) for each in item.get("parameters", ()))


def _operation(operation: Mapping[str, Any]) -> bytes:
    responses = b"".join(_named(1, code, nested(1, _response(answer))) for code, answer in operation["responses"].items())
    return b"".join(
        (
            *(text(6, media) for media in operation.get("produces", ())),
            *(text(7, media) for media in operation.get("consumes", ())),
            *(_parameter(8, each) for each in operation["parameters"]),
            nested(9, responses),
            _extensions(13, operation),
        )
    )


def _response(answer: Mapping[str, Any]) -> bytes:
    schema = nested(2, nested(1, _schema(answer["schema"]))) if "schema" in answer else b""
    return text(1, answer["description"]) + schema


def _parameter(number: int, parameter: Mapping[str, Any]) -> bytes:
    required = _integer(1, True) if parameter.get("required") else b""
    if parameter["in"] == "body":
        body = text(2, parameter["name"]) + text(3, "body") + (_integer(4, True) if required else b"")
        return nested(number, nested(1, nested(1, body + nested(5, _schema(parameter["schema"])))))
    common = required + text(2, parameter["in"]) + text(3, parameter.get("description", "")) + text(4, parameter["name"])
    if parameter["in"] == "path":
        which, own = 4, text(5, parameter["type"]) + _integer(19, bool(parameter.get("uniqueItems")))
    else:
        which, own = 3, text(6, parameter["type"]) + _integer(20, bool(parameter.get("uniqueItems")))
    return nested(number, nested(1, nested(2, nested(which, common + own))))


def _schema(schema: Mapping[str, Any]) -> bytes:
    parts = [text(number, schema[name]) for name, number in _SCHEMA_TEXTS.items() if name in schema]
    parts += [varint(number << 3 | 1) + struct.pack("<d", schema[name]) for name, number in _SCHEMA_DOUBLES.items() if name in schema]
    parts += [_integer(number, schema[name]) for name, number in _SCHEMA_INTEGERS.items() if name in schema]
    parts += [text(19, name) for name in schema.get("required", ())]
    parts += [nested(20, _any(value)) for value in schema.get("enum", ())]
    if "default" in schema:
        parts.append(nested(5, _any(schema["default"])))
    more = schema.get("additionalProperties")
    if more is not None:
        parts.append(nested(21, _integer(2, more) if isinstance(more, bool) else nested(1, _schema(more))))
    if "type" in schema:
        parts.append(nested(22, text(1, schema["type"])))
    if "items" in schema:
        parts.append(nested(23, nested(1, _schema(schema["items"]))))
    if "properties" in schema:
        parts.append(nested(25, b"".join(_named(1, name, _schema(each)) for name, each in schema["properties"].items())))
    parts.append(_extensions(31, schema))
    return b"".join(parts)


def _extensions(number: int, holder: Mapping[str, Any]) -> bytes:
    return b"".join(_named(number, name, _any(value)) for name, value in holder.items() if name.startswith("x-"))


def _any(value: object) -> bytes:
    return nested(2, orjson.dumps(value))


def _named(number: int, name: str, value: bytes) -> bytes:
    return nested(number, text(1, name) + nested(2, value))


def _integer(number: int, value: int) -> bytes:
    return integer(number, int(value)) if value else b""
