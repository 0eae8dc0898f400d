"""One request and its response on an HTTP/2 connection: headers, bytes both ways, trailers, and an end for each direction."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes

from atoll.http.errors import Disconnected

if TYPE_CHECKING:
    from atoll.http.http2 import Http2

Pairs = Sequence[tuple[str, str]]


def as_pairs(headers: Iterable[tuple[str | bytes, str | bytes]] | None) -> Pairs:
    return [(_text(name), _text(value)) for name, value in headers or ()]


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("latin-1")


class Http2Stream:
    """`headers` are the peer's, pseudo headers among them: at hand on a request, awaited on a response. One reader at a time."""

    def __init__(self, connection: Http2, number: int, headers: Pairs = ()) -> None:
        self.id = number
        self.headers = headers
        self.trailers: Pairs = ()
        self._connection = connection
        self._pieces: deque[tuple[bytes, int]] = deque()  # with what each took of the windows, padding included
        self._changed = asyncio.Event()
        self._broken = asyncio.Event()
        self._error: Exception | None = None
        self._answered = bool(headers)
        self._remote_ended = False
        self._local_ended = False

    @property
    def unread(self) -> bool:
        """Whether the peer has not ended its direction."""
        return self._error is None and not self._remote_ended

    async def response(self) -> Pairs:
        """The head of the response. Raises Disconnected."""
        while not self._answered:
            await self._wait()
        return self.headers

    async def read(self) -> bytes:
        """The next piece; b"" at the peer's end, with `trailers` then there. Raises Disconnected where the stream broke."""
        while not self._pieces:
            if self._remote_ended:
                return b""
            await self._wait()
        data, cost = self._pieces.popleft()
        if cost:
            self._connection.consumed(self, cost)
        return data

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()

    def send_headers(self, headers: Pairs, *, end: bool = False) -> None:
        """The head of a response, or (with `end`) its trailers. Raises Disconnected."""
        self.check()
        self._connection.send_headers(self, headers, end=end)
        if end:
            self._local_end()

    async def write(self, data: bytes) -> None:
        """At the peer's pace. Raises Disconnected."""
        await self._connection.send_data(self, data)

    def write_eof(self) -> None:
        if not self._local_ended and self._error is None:
            self._connection.end_stream(self)
            self._local_end()

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Give the stream up, unless both its directions have ended."""
        if self._error is None and not (self._local_ended and self._remote_ended):
            self._connection.reset(self, code)
            self.broken(Disconnected(f"HTTP/2 stream {self.id} was given up"))

    async def wait_broken(self) -> None:
        """Return when the peer has given the stream up, or gone."""
        await self._broken.wait()

    def check(self) -> None:
        """Raises what the stream broke with."""
        if self._error is not None:
            raise self._error

    # The connection's side

    def receive(self, data: bytes, cost: int) -> None:
        self._pieces.append((data, cost))
        self._changed.set()

    def answer(self, headers: Pairs) -> None:
        self.headers = headers
        self._answered = True
        self._changed.set()

    def trail(self, headers: Pairs) -> None:
        self.trailers = headers

    def remote_end(self) -> None:
        self._remote_ended = True
        self._changed.set()
        self._forget()

    def broken(self, error: Exception) -> None:
        self._error = error
        self._changed.set()
        self._broken.set()

    def _local_end(self) -> None:
        self._local_ended = True
        self._forget()

    def _forget(self) -> None:
        if self._local_ended and self._remote_ended:
            self._connection.forget(self)
