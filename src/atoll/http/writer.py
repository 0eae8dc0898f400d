"""The body of a response that is pushed: watches, events, followed logs.

`write` neither waits nor copies twice, so that one event can be written to a thousand watchers in a row; `buffered` tells which of them do
not keep up, and `abort` cuts those off. A producer that may be slowed awaits `drain` instead.
"""

from __future__ import annotations

from atoll.http.connection import Connection
from atoll.http.errors import Disconnected

JOIN_MAX = 64 * 1024  # larger pieces are not copied into one buffer with their framing
LAST_CHUNK = b"0\r\n\r\n"


class ResponseWriter:
    """Returned by Request.start. The server ends the body when the handler returns."""

    __slots__ = ("_chunked", "_connection", "_discard", "_left")

    def __init__(self, connection: Connection, *, chunked: bool, discard: bool, length: int | None) -> None:
        self._connection = connection
        self._chunked = chunked
        self._discard = discard  # a response to HEAD
        self._left = length  # bytes still owed to a declared Content-Length

    def write(self, data: bytes) -> None:
        """Queue a piece of the body. Disconnected when the client has gone; ValueError beyond a declared Content-Length."""
        if not data:
            return
        connection = self._connection
        if connection.lost:
            raise Disconnected("the client closed the connection")
        if self._discard:
            return
        if self._left is not None:
            if len(data) > self._left:
                raise ValueError(f"{len(data) - self._left} bytes more than the declared Content-Length")
            self._left -= len(data)
        if not self._chunked:
            connection.transport.write(data)
        elif len(data) <= JOIN_MAX:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    async def drain(self) -> None:
        """Wait while the client is behind; Disconnected when it has gone."""
        await self._connection.drain()

    @property
    def paused(self) -> bool:
        """The client is behind: drain() would wait."""
        return self._connection.write_paused

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._connection.lost else self._connection.transport.get_write_buffer_size()

    @property
    def closed(self) -> bool:
        return self._connection.lost

    def abort(self) -> None:
        """Cut the client off at once, dropping what is buffered. Its handler's drain and wait_disconnected then end."""
        if not self._connection.lost:
            self._connection.transport.abort()

    def end(self) -> None:
        """Close the body; the server's own call. ValueError when a declared Content-Length was not met."""
        if self._connection.lost:
            return
        if self._left and not self._discard:
            raise ValueError(f"{self._left} bytes less than the declared Content-Length")
        if self._chunked and not self._discard:
            self._connection.transport.write(LAST_CHUNK)
