"""One connection of the server: bytes in, requests to the handler, responses out.

`data_received` passes bytes to the method that the state calls for (`_receive`): a head, a body by length or chunked, bytes held back
while a request is being answered (pipelined requests, or what follows an upgrade), a hijacked stream, or nothing any more. A task answers
requests one after another and ends when none waits, so an idle connection costs no task; deadlines are a number that the server's sweep
looks at, so a request costs no timer.

The handler is not cancelled when its client goes: half a `docker create` must not happen. It is told (`wait_disconnected`), its reads and
writes raise Disconnected, and an iterator body is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol

from atoll.http.connection import Connection
from atoll.http.errors import BodyTimeout, Disconnected, MethodNotAllowed, ProtocolError, RouteNotFound
from atoll.http.headers import Headers
from atoll.http.inbox import Inbox
from atoll.http.limits import Limits
from atoll.http.parser import RefusedHead, RequestParser
from atoll.http.request import Peer, Request
from atoll.http.response import BODILESS, Response, encode_headers, status_line, text_response
from atoll.http.stream import Stream
from atoll.http.writer import JOIN_MAX, ResponseWriter

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response | None]]
ErrorHandler = Callable[[Request, Exception], Response]

HELD_MAX = 64 * 1024  # bytes kept for after the current request before the client is paused
HEAD_END = b"\r\n\r\n"


def default_on_error(request: Request, error: Exception) -> Response:
    """The router's own errors as they are, everything else a bare 500: messages are mapped by the faces, never leaked from here."""
    if isinstance(error, MethodNotAllowed):
        return text_response(f"{error}\n", 405, (("Allow", ", ".join(error.allowed)),))
    if isinstance(error, RouteNotFound):
        return text_response(f"{error}\n", 404)
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return text_response("internal server error\n", 500)


class Owner(Protocol):
    """What a connection needs of its server."""

    handler: Handler
    limits: Limits
    on_error: ErrorHandler
    connections: set[HttpConnection]
    closing: bool

    def date(self) -> bytes: ...
    def watch_deadlines(self) -> None: ...


class HttpConnection(Connection):
    """The server's side of one connection; also the Exchange of its current request."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._owner = owner
        self._loop = loop
        self.limits = owner.limits
        self.deadline = 0.0  # loop time at which `expire` is called; 0: never
        self._parser = RequestParser(self._feed_inbox)
        self._receive = self._receive_head
        self._head = b""  # an unfinished head
        self._held = b""
        self._remaining = 0  # bytes of a body by length still to come
        self._task: asyncio.Task[None] | None = None
        self._eof = False
        self._eof_waiters: list[asyncio.Future[None]] = []
        self._reset()

    def _reset(self) -> None:
        """Forget the last exchange."""
        self._request: Request | None = None
        self._inbox: Inbox | None = None  # None: the request has no body
        self._continue_due = False
        self._keep_alive = True
        self._responded = False  # a final response's head was written
        self._writer: ResponseWriter | None = None
        self._stream: Stream | None = None
        self._iterating = False  # an iterator body is being sent: cancelled when the client goes

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peer = _peer_of(transport)
        self._name = f"http {self._peer.address}"
        owner = self._owner
        crowded = len(owner.connections) >= self.limits.connections
        owner.connections.add(self)
        self.deadline = self._loop.time() + self.limits.idle_timeout
        owner.watch_deadlines()
        if crowded:
            self._refuse(503, "too many connections")
        elif owner.closing:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> bool:
        self._eof = True
        if self._stream is not None or self._request is not None:
            self._hang_up()
            return not self.tls
        return False  # idle, in a head, or lingering: nothing to answer

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner.connections.discard(self)
        self._eof = True
        if self._inbox is not None:
            if self._stream is not None and exc is None:
                self._inbox.feed_eof()
            else:
                self._inbox.fail(Disconnected(f"the client closed the connection{f': {exc}' if exc else ''}"))
        self._hang_up()

    def _hang_up(self) -> None:
        """The client has ended its direction: to a hijacked stream an EOF, to a request in progress the client's leaving."""
        if self._stream is not None:
            if self._inbox is not None and not self.lost:
                self._inbox.feed_eof()
            if not self.lost:
                return
        elif self._inbox is not None and not self._inbox.ended:
            self._inbox.fail(Disconnected("the client closed the connection before the end of its request"))
        for waiter in self._eof_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._eof_waiters.clear()
        if self._iterating and self._task is not None:
            self._task.cancel()

    def expire(self) -> None:
        """The deadline has passed: what that means depends on what we wait for."""
        self.deadline = 0.0
        if self._receive == self._receive_head and self._head:
            self._refuse(408, "the request's head did not arrive in time")
        elif self._receive == self._receive_head:
            self.transport.close()
        else:
            self.transport.abort()

    # Receiving, one method for each state

    def _receive_head(self, data: bytes) -> None:
        if self._head:
            start = max(0, len(self._head) - 3)
            data = self._head + data
        else:
            data = data.lstrip(b"\r\n") if data[0] in b"\r\n" else data  # RFC 9112, 2.2: ignore empty lines before a request
            start = 0
        end = data.find(HEAD_END, start) + 4
        limit = self.limits.head
        if end == 3 or end > limit:
            if len(data) > limit:
                self._refuse(431, f"the request's head is larger than {limit} bytes")
            elif data and not 65 <= data[0] <= 90:  # not an upper-case letter: TLS or noise, and no blank line may ever come
                self._refuse(400, "this is not HTTP/1.1")
            elif data:
                if not self._head:
                    self.deadline = self._loop.time() + self.limits.head_timeout
                self._head = data
            return
        self._head = b""
        rest = b""
        if end != len(data):
            rest = data[end:]
            data = data[:end]
        try:
            self._parser.parse_head(data, limit)
        except RefusedHead as error:
            self._refuse(error.status, str(error))
            return
        self._begin(rest)

    def _begin(self, rest: bytes) -> None:
        """A head is there: hand its request over, and take what followed it."""
        parser = self._parser
        self._request = Request(parser.method, parser.target, Headers(parser.pairs), self._peer, self)
        self.deadline = 0.0
        self._keep_alive = parser.keep_alive
        if parser.chunked or parser.length:
            self._inbox = Inbox(self.transport)
            self._continue_due = parser.expects_continue
            self._remaining = parser.length
            self._receive = self._receive_chunked if parser.chunked else self._receive_length
        else:
            self._receive = self._hold
        if rest:
            self._receive(rest)
        if self._task is None:
            self._task = self._loop.create_task(self._serve(), name=self._name)

    def _receive_length(self, data: bytes) -> None:
        rest = data[self._remaining :]
        if rest:
            data = data[: self._remaining]
        self._remaining -= len(data)
        self._feed_inbox(data)
        if not self._remaining:
            self._end_body()
            if rest:
                self._hold(rest)

    def _receive_chunked(self, data: bytes) -> None:
        try:
            self._parser.feed_chunked(data)
        except ProtocolError as error:
            self._keep_alive = False
            self._receive = self._ignore
            if self._inbox is not None and not self._parser.body_complete:
                self._inbox.fail(error)
                return
        if self._parser.body_complete:
            self._end_body()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD_MAX:
            self.transport.pause_reading()

    def _receive_stream(self, data: bytes) -> None:
        self._feed_inbox(data)

    def _ignore(self, data: bytes) -> None:
        """Reading on only so that the client gets our response before a reset."""

    def _feed_inbox(self, data: bytes) -> None:
        if self._inbox is not None:
            self._inbox.feed(data)

    def _end_body(self) -> None:
        if self._inbox is not None:
            self._inbox.feed_eof()
        if self._receive != self._ignore:
            self._receive = self._hold

    # Answering

    async def _serve(self) -> None:
        try:
            while self._request is not None:
                await self._answer(self._request)
                self._finish()
        except asyncio.CancelledError:
            if not self.lost:
                self.transport.abort()
            raise
        finally:
            self._task = None

    async def _answer(self, request: Request) -> None:
        """Run the handler and send what it returns. Errors end here."""
        try:
            response = await self._owner.handler(request)
            if self._stream is not None:
                return
            if self._writer is not None:
                self._writer.end()
                return
            if response is None:
                if self._eof:
                    self._keep_alive = False  # the handler saw the client leave
                    return
                raise RuntimeError("the handler returned None without a response")
            await self._send(request, response)
        except Exception as error:
            if self.lost:
                if not isinstance(error, Disconnected):
                    log.warning("%s %s failed after its client had gone", request.method, request.path, exc_info=error)
            elif self._responded:
                log.exception("%s %s failed after its response had begun", request.method, request.path)
                self.transport.abort()  # the only way left to tell the client
            elif isinstance(error, BodyTimeout):
                self._refuse(408, str(error))
            elif self._inbox is not None and self._inbox.error is error:
                self._refuse(400, str(error))
            else:
                await self._send_error(request, error)

    async def _send_error(self, request: Request, error: Exception) -> None:
        try:
            await self._send(request, self._owner.on_error(request, error))
        except Exception:
            log.exception("%s %s: its error could not be sent", request.method, request.path)
            if not self.lost and not self._responded:
                self._refuse(500, "internal server error")

    async def _send(self, request: Request, response: Response) -> None:
        body = response.body
        status = response.status
        if isinstance(body, bytes):
            silent = request.method == "HEAD" or status in BODILESS
            head = self._encode_head(response, len(body), silent=silent)
            if self.lost:
                return
            self._responded = True
            if silent or not body:
                self.transport.write(head)
            elif len(body) <= JOIN_MAX:
                self.transport.write(head + body)
            else:
                self.transport.writelines((head, body))
            if self.write_paused:
                await self.drain()
        else:
            await self._send_iterator(request, response, body)

    async def _send_iterator(self, request: Request, response: Response, body: AsyncIterator[bytes]) -> None:
        try:
            writer = self.start(status=response.status, headers=response.headers)
            if request.method == "HEAD" or response.status in BODILESS:
                return
            self._iterating = True
            async for piece in body:
                writer.write(piece)
                if self.write_paused:
                    await self.drain()
            writer.end()
        except asyncio.CancelledError:
            if not self._eof:
                raise
            if self._task is not None:
                self._task.uncancel()  # it was _hang_up that cancelled, to end the iterator
            if not self.lost:
                self.transport.abort()
        finally:
            self._iterating = False
            if close := getattr(body, "aclose", None):
                await close()

    def _encode_head(self, response: Response, length: int | None, *, silent: bool, chunked: bool = False) -> bytes:
        """The head as bytes; `length` None: chunked, or to the end of the connection. Decides whether the connection is kept."""
        fields, names = encode_headers(response.headers)
        pieces = [status_line(response.status), fields]
        if "date" not in names:
            pieces.append(self._owner.date())
        if "content-length" in names:
            if not silent and length is not None and b"content-length: %d\r\n" % length not in fields.lower():
                raise ValueError("the response's Content-Length is not the length of its body")
        elif length is not None and response.status not in BODILESS:
            pieces.append(b"Content-Length: %d\r\n" % length)
        elif chunked:
            pieces.append(b"Transfer-Encoding: chunked\r\n")
        if self._owner.closing or not self._body_complete:
            self._keep_alive = False
        if not self._keep_alive:
            pieces.append(b"Connection: close\r\n")
        elif self._parser.is_http10:
            pieces.append(b"Connection: keep-alive\r\n")
        pieces.append(b"\r\n")
        return b"".join(pieces)

    @property
    def _body_complete(self) -> bool:
        return self._inbox is None or self._inbox.ended

    def _finish(self) -> None:
        """After an answer: close, linger, or go on to the next request."""
        if self.lost:
            self._request = None
        elif self._stream is not None:
            self._request = None
            self._stream.close()
            self.deadline = self._loop.time() + self.limits.idle_timeout  # for a peer that does not take the last bytes
        elif self._receive == self._ignore:
            self._request = None
            self._linger()
        elif not self._keep_alive:
            self._request = None
            if self._body_complete and not self._held:
                self._receive = self._ignore
                self.deadline = self._loop.time() + self.limits.idle_timeout
                self.transport.close()
            else:
                self._linger()
        else:
            self._next()

    def _next(self) -> None:
        self._reset()
        self._receive = self._receive_head
        self.deadline = self._loop.time() + self.limits.idle_timeout
        held, self._held = self._held, b""
        self._resume_reading()
        if held:
            self._receive_head(held)
        if self._request is None and (self._eof or self._owner.closing) and self._receive == self._receive_head:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot become a request, or broke while it was one, and close."""
        if self.lost:
            return
        if not self._responded:
            body = f"{message}\n".encode()
            self.transport.write(
                status_line(status)
                + self._owner.date()
                + b"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body
            )
            self._responded = True
        self._keep_alive = False
        self._linger()

    def _linger(self) -> None:
        """Half-close and read on for a moment: closing with unread input would reset the connection, response and all (RFC 9112, 9.6)."""
        self._receive = self._ignore
        self._head = self._held = b""
        self.deadline = self._loop.time() + self.limits.linger
        if self._eof:
            self.transport.close()
        else:
            if self.can_write_eof:
                self.transport.write_eof()
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # The request's side (request.Exchange)

    def body_at_hand(self) -> bytes | None:
        """The rest of the body where all of it has arrived, else None."""
        inbox = self._inbox
        if inbox is None:
            return b""
        return inbox.take_all() if inbox.ended else None

    async def read_body(self) -> bytes:
        inbox = self._inbox
        if inbox is None:
            return b""
        if self._continue_due:
            self._continue_due = False
            if not inbox.ended and not self._responded and not self.lost:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await inbox.read()

    def start(self, status: int, headers: Iterable[tuple[str, str]]) -> ResponseWriter:
        if self._responded or self._request is None:
            raise RuntimeError("this request has its response already")
        response = Response(status, headers)
        declared = next((int(value) for name, value in response.headers if name.lower() == "content-length"), None)
        silent = self._request.method == "HEAD" or status in BODILESS
        chunked = declared is None and not self._parser.is_http10 and status not in BODILESS
        if declared is None and not chunked and not silent:
            self._keep_alive = False  # HTTP/1.0: the end of the connection ends the body
        head = self._encode_head(response, None, silent=silent, chunked=chunked)
        self.send(head)
        self._responded = True
        self._writer = ResponseWriter(self, chunked=chunked, discard=silent, length=declared)
        return self._writer

    async def upgrade(self, status: int, headers: Iterable[tuple[str, str]]) -> Stream:
        if self._responded or self._request is None:
            raise RuntimeError("this request has its response already")
        if not self._body_complete or self._receive == self._ignore:
            raise ProtocolError("the request's body must end before its connection is upgraded")
        pairs = tuple(headers)
        fields, names = encode_headers(pairs)
        head = status_line(status) + self._owner.date() + fields
        if status == 101:
            if "connection" not in names:
                head += b"Connection: Upgrade\r\n"
            if "upgrade" not in names:
                head += encode_headers((("Upgrade", self._request.upgrade_token or ""),))[0]
        self.send(head + b"\r\n")
        self._responded = True
        self._keep_alive = False
        self._inbox = Inbox(self.transport)
        self._receive = self._receive_stream
        self._stream = Stream(self, self._inbox)
        held, self._held = self._held, b""
        self._resume_reading()
        if held:
            self._inbox.feed(held)
        if self._eof:
            self._inbox.feed_eof()
        return self._stream

    async def wait_disconnected(self) -> None:
        if self.lost or (self._eof and self._stream is None):
            return
        waiter = self._loop.create_future()
        self._eof_waiters.append(waiter)
        await waiter

    # The server's side

    @property
    def busy(self) -> bool:
        """A request is being answered or the connection is hijacked."""
        return self._task is not None

    def close_if_idle(self) -> None:
        """The server is going: idle connections at once, busy ones after their response."""
        if not self.busy and not self.lost:
            self.transport.close()

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task


def _peer_of(transport: asyncio.BaseTransport) -> Peer:
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        address = f"{host}:{name[1]}"
    else:
        address = "unix"
    session = transport.get_extra_info("ssl_object")
    return Peer(address, session.getpeercert(binary_form=True) if session is not None else None)
