"""Raw two-way byte streams: what is left of a connection once HTTP has been upgraded away, and plain sockets in the same shape.

`Duplex` is the seam: a hijacked connection, a stream inside SPDY and a WebSocket carrying bytes all fit it, so `splice` joins any two.
TLS knows no half-close in asyncio (its close_notify ends both ways), hence `can_write_eof`.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from atoll.errors import Unavailable
from atoll.http.connection import Connection
from atoll.http.errors import Disconnected
from atoll.http.inbox import READ_MAX, Inbox


class Duplex(Protocol):
    """Bytes both ways, each way with an end of its own where `can_write_eof`."""

    @property
    def can_write_eof(self) -> bool: ...
    async def read(self, n: int = READ_MAX) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class Stream:
    """A connection as bytes. One reader at a time."""

    __slots__ = ("_connection", "_inbox")

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox

    @property
    def can_write_eof(self) -> bool:
        return self._connection.can_write_eof

    @property
    def closed(self) -> bool:
        return self._connection.lost

    @property
    def buffered(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return 0 if self._connection.lost else self._connection.transport.get_write_buffer_size()

    @property
    def unread(self) -> int:
        """Whether the peer has yet to read what was written: 0 once it has taken all of it (unix sockets; TCP: acknowledged)."""
        if self._connection.lost:
            return 0
        sock = self._connection.transport.get_extra_info("socket")
        answer = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, answer)  # SIOCOUTQ, unix(7) and tcp(7)
        return self.buffered + answer[0]

    async def read(self, n: int = READ_MAX) -> bytes:
        """Up to n bytes; b"" when the peer has ended its direction. Disconnected when the connection broke."""
        return await self._inbox.read(n)

    def write(self, data: bytes) -> None:
        """Queue bytes; call drain() to let the peer keep up. Disconnected when it has gone."""
        self._connection.send(data)

    async def drain(self) -> None:
        await self._connection.drain()

    def write_eof(self) -> None:
        """End our direction, keep reading. Without effect where can_write_eof is False (TLS): close() ends both."""
        if self.can_write_eof:
            self._connection.transport.write_eof()

    def close(self) -> None:
        """Flush what was written, then close both directions."""
        if not self._connection.lost:
            self._connection.close()

    def abort(self) -> None:
        """Close at once and drop what was not sent."""
        if not self._connection.lost:
            self._connection.transport.abort()

    async def wait_closed(self) -> None:
        await self._connection.wait_lost()


class SocketConnection(Connection):
    """A plain socket behind a Stream: everything that arrives goes to the inbox."""

    inbox: Inbox

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.inbox = Inbox(self.transport)

    def data_received(self, data: bytes) -> None:
        self.inbox.feed(data)

    def eof_received(self) -> bool:
        self.inbox.feed_eof()
        return not self.tls

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if exc is None:
            self.inbox.feed_eof()
        else:
            self.inbox.fail(Disconnected(f"the connection broke: {exc}"))


async def connect_tcp(host: str, port: int, *, timeout: float = 10.0) -> Stream:  # noqa: ASYNC109  # the contract says what is raised
    """A TCP connection as a Stream; Unavailable naming the target when it cannot be made within `timeout` seconds."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(SocketConnection, host, port)
    except TimeoutError:
        raise Unavailable(f"{host}:{port} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise Unavailable(f"cannot connect to {host}:{port}: {error.strerror or error}") from error
    return Stream(connection, connection.inbox)


async def connect_unix(path: str | os.PathLike[str]) -> Stream:
    """A unix socket as a Stream; Unavailable naming the path when nothing listens there."""
    try:
        _, connection = await asyncio.get_running_loop().create_unix_connection(SocketConnection, os.fspath(path))
    except OSError as error:
        raise Unavailable(f"cannot connect to unix://{os.fspath(path)}: {error.strerror or error}") from error
    return Stream(connection, connection.inbox)


@asynccontextmanager
async def listen_unix(path: str | os.PathLike[str], handler: Callable[[Stream], Awaitable[None]]) -> AsyncIterator[None]:
    """A unix socket at `path` while the block runs; each connection goes to `handler`, and is closed when that returns."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def run(connection: SocketConnection) -> None:
        stream = Stream(connection, connection.inbox)
        try:
            await handler(stream)
        finally:
            stream.close()

    def accepted(connection: SocketConnection) -> None:
        task = loop.create_task(run(connection), name=f"connection of {os.fspath(path)}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await loop.create_unix_server(lambda: _Accepted(accepted), os.fspath(path))
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        os.unlink(path)


class _Accepted(SocketConnection):
    """Tells when it is there."""

    def __init__(self, told: Callable[[SocketConnection], None]) -> None:
        super().__init__()
        self._told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._told(self)


async def from_socket(sock: socket.socket) -> Stream:
    """A connected stream socket (TCP, or an end of a socketpair) as a Stream, which then owns it."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        _, connection = await loop.create_unix_connection(SocketConnection, sock=sock)
    else:
        _, connection = await loop.create_connection(SocketConnection, sock=sock)
    return Stream(connection, connection.inbox)


async def stream_pair() -> tuple[Stream, Stream]:
    """Two ends of one connection within the process."""
    ours, theirs = socket.socketpair()
    return await from_socket(ours), await from_socket(theirs)


async def pump(source: Duplex, target: Duplex) -> None:
    """Copy until the source ends, at the target's pace, then end the target's direction."""
    while data := await source.read():
        target.write(data)
        await target.drain()
    if target.can_write_eof:
        target.write_eof()
    else:
        target.close()


async def splice(a: Duplex, b: Duplex) -> None:
    """Join two streams until both directions have ended or either side breaks; both are closed at return.

    An end is passed on as a half-close. Where the other side cannot half-close (TLS), its end closes it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(a, b), name="splice a to b")
            group.create_task(pump(b, a), name="splice b to a")
    except* Disconnected:
        pass  # the ordinary end of one side; nothing is left to carry to it
    finally:
        a.close()
        b.close()
    with contextlib.suppress(Disconnected):
        await asyncio.gather(a.wait_closed(), b.wait_closed())
