"""One request's way through its handler to its response.

Made anew for every request, so nothing of one can leak into the next. The request knows its exchange, and not the other way round: a cycle
for each request would be left to the garbage collector. Errors of the handler end here: before the response has begun they become one
(`on_error`); after that, cutting the connection is the only way left to tell the client.

The handler is not cancelled when its client goes: half a `docker create` must not happen. It is told (`wait_disconnected`), its reads and
writes raise Disconnected, and an iterator body is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from atoll.http.errors import BodyTimeout, BodyTooLarge, Disconnected, MethodNotAllowed, ProtocolError, RouteNotFound
from atoll.http.headers import Headers
from atoll.http.inbox import Inbox
from atoll.http.request import Request
from atoll.http.response import BODILESS, Response, encode_headers, status_line, text_response
from atoll.http.stream import Stream
from atoll.http.writer import JOIN_MAX, ResponseWriter

if TYPE_CHECKING:
    from atoll.http.protocol import HttpConnection

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response | None]]
ErrorHandler = Callable[[Request, Exception], Response]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def default_on_error(request: Request, error: Exception) -> Response:
    """The errors of this package as they are, everything else a bare 500: the faces map messages, none leaks from here."""
    if isinstance(error, MethodNotAllowed):
        return text_response(f"{error}\n", 405, (("Allow", ", ".join(error.allowed)),))
    for kind, status in ((RouteNotFound, 404), (BodyTooLarge, 413), (ProtocolError, 400)):
        if isinstance(error, kind):
            return text_response(f"{error}\n", status)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return text_response("internal server error\n", 500)


class Exchange:
    """A request, what its body still owes, and its response. Implements request.Exchange."""

    __slots__ = (
        "_connection", "_continue_due", "_eof_waiters", "_headers", "_is_http10", "_iterating", "_method", "_target", "_writer",
        "inbox", "keep_alive", "limits", "responded", "stream",
    )  # fmt: skip

    def __init__(self, connection: HttpConnection) -> None:
        parser = connection.parser
        self._connection = connection
        self.limits = connection.limits
        self.inbox = Inbox(connection.transport) if parser.length or parser.chunked else None
        self.keep_alive = parser.keep_alive
        self.responded = False  # the head of the final response was written
        self.stream: Stream | None = None
        self._continue_due = parser.expects_continue
        self._is_http10 = parser.is_http10
        self._writer: ResponseWriter | None = None
        self._iterating: asyncio.Task[None] | None = None  # the task that sends an iterator body
        self._eof_waiters: list[asyncio.Future[None]] | None = None
        self._method = parser.method
        self._target = parser.target
        self._headers = Headers(parser.pairs)

    @property
    def body_complete(self) -> bool:
        return self.inbox is None or self.inbox.ended

    # The connection's side

    async def run(self, handler: Handler) -> None:
        """Call the handler and send what it returns."""
        connection = self._connection
        request = Request(self._method, self._target, self._headers, connection.peer, self)
        try:
            response = await handler(request)
            if response is not None:
                await self._send(response)
            elif self._writer is not None:
                self._writer.end()
            elif self.stream is None:
                if not connection.eof:
                    raise RuntimeError("the handler returned None without a response")
                self.keep_alive = False  # the handler saw its client leave
        except Exception as error:
            if connection.lost:
                if not isinstance(error, Disconnected):
                    log.warning("%s %s failed after its client had gone", request.method, request.path, exc_info=error)
            elif self.responded:
                if isinstance(error, Disconnected):  # of the far side, where the handler joins two
                    log.info("%s %s ended early: %s", request.method, request.path, error)
                else:
                    log.exception("%s %s failed after its response had begun", request.method, request.path)
                connection.transport.abort()
            elif isinstance(error, BodyTimeout):
                connection.refuse(408, str(error))
            elif self.inbox is not None and self.inbox.error is error:
                connection.refuse(400, str(error))
            else:
                await self._send_error(request, error)

    def hang_up(self) -> None:
        """The client has ended its direction, or the connection is lost."""
        lost = self._connection.lost
        if self.stream is not None and not lost:
            if self.inbox is not None:
                self.inbox.feed_eof()  # a half-close: the stream's business
            return
        if self.inbox is not None and self.stream is None:
            self.inbox.fail(Disconnected("the client closed the connection before the end of its request"))
        for waiter in self._eof_waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        if self._iterating is not None:
            self._iterating.cancel()

    async def _send_error(self, request: Request, error: Exception) -> None:
        try:
            await self._send(self._connection.owner.on_error(request, error))
        except Exception:
            log.exception("%s %s: its error could not be sent", request.method, request.path)
            if not self._connection.lost and not self.responded:
                self._connection.refuse(500, "internal server error")

    async def _send(self, response: Response) -> None:
        body = response.body
        if not isinstance(body, bytes):
            await self._send_iterator(response, body)
            return
        if self.responded:
            raise RuntimeError("the handler returned a response after it had begun another")
        connection = self._connection
        silent = self._method == "HEAD" or response.status in BODILESS
        head = self._encode_head(response, len(body), silent=silent)
        if connection.lost:
            return
        self.responded = True
        if silent or not body:
            connection.transport.write(head)
        elif len(body) <= JOIN_MAX:
            connection.transport.write(head + body)
        else:
            connection.transport.writelines((head, body))
        if connection.write_paused:
            await self._drain()

    async def _drain(self) -> None:
        """Waits for the client as long as it takes anything."""
        connection, stall = self._connection, self._connection.limits.stall
        while stall:
            left = connection.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(stall):
                    await connection.drain()
                return
            except TimeoutError:
                if connection.transport.get_write_buffer_size() >= left:
                    connection.transport.abort()
                    raise Disconnected(f"the client took nothing for {stall:g} s") from None
        await connection.drain()

    async def _send_iterator(self, response: Response, body: AsyncIterator[bytes]) -> None:
        connection = self._connection
        task = asyncio.current_task()
        try:
            writer = self.start(response.status, response.headers)
            if self._method == "HEAD" or response.status in BODILESS:
                return
            if connection.eof:
                raise Disconnected("the client closed the connection")
            self._iterating = task
            async for piece in body:
                writer.write(piece)
                if connection.write_paused:
                    await self._drain()
            writer.end()
        except asyncio.CancelledError:
            if not connection.eof or task is None or task.uncancel() > 0:
                raise  # not, or not only, by hang_up
            if not connection.lost:
                connection.transport.abort()
        finally:
            self._iterating = None
            if close := getattr(body, "aclose", None):
                await close()

    def _encode_head(self, response: Response, length: int | None, *, silent: bool, chunked: bool = False) -> bytes:
        """The head as bytes; `length` None: chunked, declared, or to the end of the connection. Decides whether the connection is kept."""
        owner = self._connection.owner
        status = response.status
        fields, names = encode_headers(response.headers)
        if "content-length" in names:
            if not silent and length is not None and b"content-length: %d\r\n" % length not in fields.lower():
                raise ValueError("the response's Content-Length is not the length of its body")
            framing = b""
        elif length is not None and status not in BODILESS:
            framing = b"Content-Length: %d\r\n" % length
        else:
            framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        if owner.closing or not self.body_complete:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif self._is_http10:
            framing += b"Connection: keep-alive\r\n"
        return b"%b%b%b%b\r\n" % (status_line(status), fields, b"" if "date" in names else owner.date(), framing)

    # The request's side (request.Exchange)

    def body_at_hand(self) -> bytes | None:
        inbox = self.inbox
        if inbox is None:
            return b""
        return inbox.take_all() if inbox.ended else None

    async def read_body(self) -> bytes:
        inbox = self.inbox
        if inbox is None:
            return b""
        if self._continue_due:
            self._continue_due = False
            if not inbox.arrived and not inbox.ended and not self.responded and not self._connection.lost:
                self._connection.transport.write(CONTINUE)
        return await inbox.read()

    def start(self, status: int, headers: Iterable[tuple[str, str]]) -> ResponseWriter:
        if self.responded:
            raise RuntimeError("this request has its response already")
        response = Response(status, headers)
        declared = next((int(value) for name, value in response.headers if name.lower() == "content-length"), None)
        silent = self._method == "HEAD" or status in BODILESS
        chunked = declared is None and not self._is_http10 and status not in BODILESS
        if declared is None and not chunked and not silent:
            self.keep_alive = False  # HTTP/1.0: the end of the connection ends the body
        self._connection.send(self._encode_head(response, None, silent=silent, chunked=chunked))
        self.responded = True
        self._writer = ResponseWriter(self._connection, chunked=chunked, discard=silent, length=declared)
        return self._writer

    async def upgrade(self, status: int, headers: Iterable[tuple[str, str]], reason: bytes = b"") -> Stream:
        connection = self._connection
        if self.responded:
            raise RuntimeError("this request has its response already")
        if not self.body_complete or not connection.holding:
            raise ProtocolError("the request's body must end before its connection is upgraded")
        fields, names = encode_headers(tuple(headers))
        head = status_line(status, reason) + connection.owner.date() + fields
        if status == 101:
            if "connection" not in names:
                head += b"Connection: Upgrade\r\n"
            if "upgrade" not in names:
                head += encode_headers((("Upgrade", self._headers.get("upgrade") or ""),))[0]
        connection.send(head + b"\r\n")
        self.responded = True
        self.keep_alive = False
        self.inbox = Inbox(connection.transport)
        self.stream = Stream(connection, self.inbox)
        connection.hijack(self.inbox)
        return self.stream

    async def wait_disconnected(self) -> None:
        connection = self._connection
        if connection.lost or (connection.eof and self.stream is None):
            return
        waiter = asyncio.get_running_loop().create_future()
        if self._eof_waiters is None:
            self._eof_waiters = []
        self._eof_waiters.append(waiter)
        await waiter
