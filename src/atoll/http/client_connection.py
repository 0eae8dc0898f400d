"""One connection of the client: a request out, its response in.

A parser lives for one response. httptools cannot be told that a response answers HEAD and so has no body; such a response is complete at
its head, and its parser is dropped there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

import httptools

from atoll.http.connection import Connection
from atoll.http.errors import BodyTooLarge, Disconnected, ProtocolError
from atoll.http.headers import Headers
from atoll.http.inbox import Inbox
from atoll.http.response import encode_headers
from atoll.http.stream import Stream
from atoll.http.writer import LAST_CHUNK

HEAD_MAX = 256 * 1024  # bytes of a response's status line and fields
BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})  # say Content-Length: 0 for these (RFC 9110, 8.6)


class ClientResponse:
    """`status`, `headers`; the body by read(), or piece by piece with `async for`. An async context manager that closes."""

    __slots__ = ("_connection", "_inbox", "headers", "status")

    def __init__(self, status: int, headers: Headers, inbox: Inbox, connection: ClientConnection) -> None:
        self.status = status
        self.headers = headers
        self._inbox = inbox
        self._connection = connection

    async def read(self, limit: int | None = None) -> bytes:
        """The rest of the body. BodyTooLarge beyond `limit` bytes; Disconnected when the server breaks off."""
        pieces = []
        size = 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size > limit:
                self.close()
                raise BodyTooLarge(f"the response has more than {limit} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they arrive."""
        while piece := await self._inbox.read():
            yield piece

    def close(self) -> None:
        """Done with it. A body not read to its end costs the connection; else it is reused."""
        if not self._inbox.ended:
            self._connection.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class ClientConnection(Connection):
    """`on_released(self)` is called when an exchange has ended and when the connection is lost."""

    def __init__(self, on_released: Callable[[ClientConnection], None]) -> None:
        super().__init__()
        self._on_released = on_released
        self.idle_since = 0.0
        self.answered = False  # a byte of the current response has arrived
        self.reusable = False
        self._parser: httptools.HttpResponseParser | None = None
        self._inbox: Inbox | None = None
        self._head: asyncio.Future[ClientResponse] | None = None
        self._head_size = 0
        self._pairs: list[tuple[bytes, bytes]] = []
        self._method = ""
        self._sent = False
        self._sender: asyncio.Task[None] | None = None
        self._complete = False
        self._keep_alive = False
        self._upgraded = False

    async def exchange(
        self, method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes | AsyncIterator[bytes]
    ) -> ClientResponse:
        """Send a request; return at its response's head. An iterator body may still be on its way then; the response's end stops it."""
        if "\n" in target or "\r" in target or " " in target:
            raise ProtocolError(f"a request target holds no blanks: {target!r}")
        self._parser = httptools.HttpResponseParser(self)
        self._inbox = Inbox(self.transport)
        head: asyncio.Future[ClientResponse] = asyncio.get_running_loop().create_future()
        self._head = head
        self._method = method
        self._pairs = []
        self._head_size = 0
        self.answered = self.reusable = self._sent = self._complete = False
        fields, names = encode_headers(headers)
        start = f"{method} {target} HTTP/1.1\r\n".encode() + fields
        try:
            if isinstance(body, bytes):
                if (body or method in BODY_EXPECTED) and "content-length" not in names:
                    start += b"Content-Length: %d\r\n" % len(body)
                self.send(start + b"\r\n" + body)
                self._sent = True
            else:
                chunked = "content-length" not in names
                self.send(start + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
                # Not awaited: a server may answer while it reads, as `docker load` shows progress.
                self._sender = asyncio.create_task(self._send_body(body, chunked=chunked), name=f"send {method} {target}")
            return await head
        except BaseException:
            self.abandon()
            raise

    async def _send_body(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for piece in body:
                if piece:
                    self.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await self.drain()
            if chunked:
                self.send(LAST_CHUNK)
            self._sent = True
        except Disconnected:
            pass  # connection_lost tells whoever waits for the response
        except Exception as error:
            self._fail(error)
            self.abandon()
        finally:
            self._sender = None
            if close := getattr(body, "aclose", None):
                await close()

    def take_stream(self) -> Stream | None:
        """The connection as a stream where the server has switched protocols; else None."""
        return Stream(self, self._inbox) if self._upgraded and self._inbox is not None else None

    def abandon(self) -> None:
        """Give the current exchange up, and the connection with it."""
        self.reusable = False
        if not self.lost:
            self.transport.abort()

    # The transport's side

    def data_received(self, data: bytes) -> None:
        inbox = self._inbox
        if inbox is None or (self._complete and not self._upgraded):
            self.abandon()  # nobody asked for these bytes
            return
        if self._upgraded:
            inbox.feed(data)
            return
        self.answered = True
        if not self._complete and self._head is not None and not self._head.done():
            self._head_size += len(data)
        try:
            if self._parser is not None:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if rest:
                inbox.feed(rest)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._fail(ProtocolError(f"the server's response is malformed: {error}"))
                self.abandon()
                return
            self._keep_alive = False
        if self._head_size > HEAD_MAX and self._head is not None and not self._head.done():
            self._fail(ProtocolError(f"the head of the server's response has more than {HEAD_MAX} bytes"))
            self.abandon()
        elif self._complete and not self._upgraded:
            self._release()

    def eof_received(self) -> bool:
        self.reusable = False
        self._keep_alive = False
        if self._upgraded and self._inbox is not None:
            self._inbox.feed_eof()
            return not self.tls
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.reusable = False
        self._stop_sending()
        inbox = self._inbox
        if inbox is not None and not inbox.ended:
            if exc is None and (self._upgraded or self._ends_with_connection):
                inbox.feed_eof()
            else:
                self._fail(Disconnected(f"the server closed the connection{f': {exc}' if exc else ''}"))
        self._on_released(self)

    @property
    def _ends_with_connection(self) -> bool:
        """The response has neither a length nor chunks: its body ends where the connection does."""
        if self._head is None or not self._head.done() or self._head.cancelled() or self._head.exception():
            return False
        headers = self._head.result().headers
        return "content-length" not in headers and "transfer-encoding" not in headers

    def _fail(self, error: Exception) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        if self._inbox is not None:
            self._inbox.fail(error)

    def _stop_sending(self) -> None:
        if self._sender is not None:
            self._sender.cancel()

    def _release(self) -> None:
        self._stop_sending()
        self.reusable = self._keep_alive and self._sent and not self.lost and not self.transport.is_closing()
        self._parser = None
        self._on_released(self)

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None and not self._head.done():
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        if self._parser is None or self._inbox is None or self._head is None or self._head.done():
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:  # an interim response: the final one follows
            self._pairs = []
            return
        self._upgraded = status == 101
        self._keep_alive = self._parser.should_keep_alive()
        self._head.set_result(ClientResponse(status, Headers(self._pairs), self._inbox, self))
        if self._method == "HEAD":
            self._finish_body()

    def on_body(self, body: bytes) -> None:
        if self._inbox is not None and not self._complete:
            self._inbox.feed(body)

    def on_message_complete(self) -> None:
        if self._head is not None and self._head.done() and not self._upgraded and not self._complete:
            self._finish_body()

    def _finish_body(self) -> None:
        self._complete = True
        if self._inbox is not None:
            self._inbox.feed_eof()
