"""Streams that may be compressed: told by their first bytes, never by a name or a media type.

Output is bounded step by step, so that a bomb costs its reader no memory. gzip goes through isal (338 MB/s at level 1 where zlib-6 has
34), zstd through zstandard; xz and bzip2 are read for `docker load`, `import` and ADD, which accept them.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import zstandard
from isal import igzip_lib, isal_zlib

from atoll.errors import InvalidInput

PIECE = 1 << 19  # most bytes one step gives out; twice as much costs isal a third of its speed, in fresh pages
GZIP_LEVEL = 2  # isal's: the knee of its curve
ZSTD_WINDOW_MAX = 1 << 27  # what the zstd program accepts without --long
XZ_MEMORY_MAX = 256 << 20

MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00"}
MAGIC_MAX = 6
_IsalError: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub has an instance


class _Decompressor(Protocol):
    """What bz2, lzma and isal agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def kind(start: bytes) -> str | None:
    """The compression whose magic `start` (at least MAGIC_MAX bytes, or all there is) begins with."""
    return next((name for name, magic in MAGIC.items() if start.startswith(magic)), None)


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The plain bytes of `chunks`, at most PIECE at a time. Raises InvalidInput for broken or truncated streams."""
    source = iter(chunks)
    start = b""
    for chunk in source:
        start += chunk
        if len(start) >= MAGIC_MAX:
            break
    method = kind(start)
    whole = _chain(start, source)
    if method is None:
        return whole
    if method == "zstd":
        return _unzstd(whole)
    return _members(method, whole)


def compress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """One gzip member of `chunks`; the same input gives the same bytes."""
    packer = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for chunk in chunks:
        if data := packer.compress(chunk):
            yield data
    yield packer.flush()


def _chain(start: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from source


def _new(method: str) -> _Decompressor:
    if method == "gzip":
        gzip: _Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return gzip
    if method == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_MAX)
    return bz2.BZ2Decompressor()


def _members(method: str, source: Iterator[bytes]) -> Iterator[bytes]:
    """Members one after another, as gzip(1) and pigz write them; zero padding may follow the last."""
    engine = _new(method)
    started = True
    for chunk in source:
        data = chunk
        while True:
            if not started:
                data = data.lstrip(b"\0")
                if not data:
                    break
                engine, started = _new(method), True
            try:
                plain = engine.decompress(data, PIECE)
            except (_IsalError, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise InvalidInput(f"broken {method} stream: {error}") from error
            data = b""
            if plain:
                yield plain
            if engine.eof:
                data, started = engine.unused_data, False
            elif engine.needs_input:
                break
    if started:
        raise InvalidInput(f"truncated {method} stream")


class _Reader(io.RawIOBase):
    """A file over chunks, for libraries that want one."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._source, None)
            if chunk is None:
                return 0
            self._rest = chunk
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


def _unzstd(source: Iterator[bytes]) -> Iterator[bytes]:
    # stream_reader bounds its output but takes a cut stream for an ended one; the tar reader and the digests notice.
    engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
    try:
        with engine.stream_reader(
            io.BufferedReader(_Reader(source), PIECE), read_size=PIECE, read_across_frames=True, closefd=False
        ) as reader:
            while data := reader.read(PIECE):
                yield data
    except zstandard.ZstdError as error:
        raise InvalidInput(f"broken zstd stream: {error}") from error
