"""Bytes that have arrived and wait for their reader, with back-pressure on the sender.

asyncio.StreamReader does the same job for lines and separators; this one only hands pieces on, without copying them together, and tells
an end (EOF) from a break (the connection was lost half-way).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

HIGH_WATER = 256 * 1024  # one read of asyncio's selector loop; beyond it the sender is paused
READ_MAX = 64 * 1024


class Source(Protocol):
    """The reading half of a transport."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Inbox:
    """A queue of byte pieces with one reader."""

    __slots__ = ("_paused", "_pieces", "_size", "_source", "_waiter", "ended", "error")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self.error: Exception | None = None
        self._paused = False
        self.ended = False

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        self.ended = True
        if self._paused:  # what comes now is somebody else's
            self._paused = False
            self._source.resume_reading()
        self._wake()

    def fail(self, error: Exception) -> None:
        """What has arrived can still be read; then the error is raised. No effect after the end."""
        if not self.ended and self.error is None:
            self.error = error
            self._wake()

    @property
    def arrived(self) -> int:
        """Bytes that wait to be read."""
        return self._size

    def take_all(self) -> bytes:
        """Everything that has arrived, at once."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._consumed(self._size)
        return data

    async def read(self, limit: int = READ_MAX) -> bytes:
        """The next piece, of `limit` bytes at most; b"" at the end. Raises what `fail` was given."""
        while not self._pieces:
            if self.ended:
                return b""
            if self.error is not None:
                raise self.error
            if self._waiter is not None:
                raise RuntimeError("two readers wait on one stream")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces.popleft()
        if len(piece) > limit:
            self._pieces.appendleft(piece[limit:])
            piece = piece[:limit]
        self._consumed(len(piece))
        return piece

    def _consumed(self, count: int) -> None:
        self._size -= count
        if self._paused and self._size <= HIGH_WATER // 2:
            self._paused = False
            self._source.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
