"""A member's bytes into a file, holes left as holes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from atoll.images.tar import Entry

PIECE = 1 << 20


def pieces(fd: int) -> Iterator[memoryview]:
    while data := os.read(fd, PIECE):
        yield memoryview(data)


def write_all(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def write_sparse(fd: int, entry: Entry, data: Iterator[memoryview]) -> None:
    piece = memoryview(b"")
    for offset, length in entry.sparse or ():
        os.lseek(fd, offset, os.SEEK_SET)
        left = length
        while left:
            if not piece:
                piece = next(data)
            part = piece[:left]
            write_all(fd, part)
            left -= len(part)
            piece = piece[len(part) :]
    os.ftruncate(fd, entry.size)
