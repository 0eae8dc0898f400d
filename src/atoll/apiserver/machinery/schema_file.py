"""Reads `schemas.bin`, which `hatch_build.py` describes. The file is read once; a line is parsed when its type is first used."""

from __future__ import annotations

import lzma
import struct
import zlib
from functools import cache
from importlib import resources
from typing import Any

import orjson

from atoll.errors import SystemFailure

_MAGIC = b"ATOLLSCHEMA1\n"
_HEADER = struct.Struct(">3I")


class SchemaFile:
    """Types have numbers, their position in `names`."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(_MAGIC):
            raise ValueError("schemas.bin was compiled for another version of Atoll: install Atoll again")
        lengths = _HEADER.unpack_from(data, len(_MAGIC))
        start = len(_MAGIC) + _HEADER.size
        index = orjson.loads(zlib.decompress(data[start : start + lengths[0]]))
        start += lengths[0]
        self.version: str = index["version"]
        self.names: list[str] = index["names"]
        self.kinds: dict[str, int] = index["kinds"]
        self._types = zlib.decompress(data[start : start + lengths[1]]).split(b"\n")
        self._descriptions = data[start + lengths[1] : start + lengths[1] + lengths[2]]

    def type(self, number: int) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads(self._types[number])
        return parsed

    def number(self, group: str, version: str, kind: str) -> int:
        """Raises KeyError for a kind that has no type."""
        return self.kinds[f"{group}/{version}/{kind}"]

    def descriptions(self) -> list[bytes]:
        """A line of JSON a type; decompressed each time, since only `kubectl explain` asks for them."""
        return lzma.decompress(self._descriptions).split(b"\n")


@cache
def schema_file() -> SchemaFile:
    try:
        data = resources.files(__package__).joinpath("schemas.bin").read_bytes()
    except FileNotFoundError as error:
        raise SystemFailure(
            "read the compiled Kubernetes schemas (install Atoll with pip, which compiles them)", error.errno or 2
        ) from error
    return SchemaFile(data)
