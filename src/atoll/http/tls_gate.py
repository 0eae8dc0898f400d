"""TLS in front of a server, for clients that end one direction and listen on (docker's hijacked streams: `echo x | docker run -i`).

asyncio's TLS transports close both directions when the peer's close_notify comes, and what a container still has to say would be lost. Here
each connection is decrypted by an SSLObject between memory buffers and handed to the server through a socket pair, whose halves close one
by one: a close_notify is an end of input, the end of the connection is the end of everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Final

from atoll.errors import InUse, SystemFailure
from atoll.http.server import BACKLOG, Server

CHUNK: Final = 64 * 1024


class TlsGate:
    """Listening sockets whose connections, once they have shown a certificate that `context` accepts, are the server's."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port. Raises InUse."""
        try:
            listener = await asyncio.start_server(self._accept, host, port, backlog=BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InUse(f"{host}:{port} is in use by another process") from error
            raise SystemFailure(f"listen on {host}:{port}", error.errno or errno.EINVAL) from error
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and cut what is left; close the server first."""
        for listener in self._listeners:
            listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listeners.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= self._server.limits.connections:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._serve(_Tls(self._context, reader, writer))
        except (OSError, asyncio.CancelledError):  # OSError: the client broke off, or showed no certificate; ssl.SSLError is one
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, tls: _Tls) -> None:
        async with asyncio.timeout(self._server.limits.head_timeout):
            await tls.handshake()
        ours, theirs = socket.socketpair()
        try:
            await self._server.adopt(theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        inward = asyncio.create_task(_carry_in(tls, writer), name="tls to server")
        try:
            while data := await reader.read(CHUNK):
                await tls.write(data)
            await tls.end()
        finally:
            inward.cancel()
            await asyncio.gather(inward, return_exceptions=True)
            writer.transport.abort()


async def _carry_in(tls: _Tls, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await tls.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await tls.wait_gone()
    except OSError:
        pass  # the end of this connection, told to the server below
    writer.transport.abort()


class _Tls:
    """The server's side of TLS over a connection's streams."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)

    async def handshake(self) -> None:
        """Raises ssl.SSLError where the client's certificate is not one that is trusted."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the alert tells the client why
                raise
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """What the client says; b"" once it has ended its direction."""
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def end(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # says close_notify; the client's own may come or not
        await self._flush()

    async def wait_gone(self) -> None:
        """Until the connection itself ends."""
        while await self._reader.read(CHUNK):
            pass

    async def _fill(self) -> None:
        data = await self._reader.read(CHUNK)
        if not data:
            raise ConnectionResetError("the client went without a word")
        self._received.write(data)

    async def _flush(self) -> None:
        if data := self._to_send.read():
            self._writer.write(data)
            await self._writer.drain()
