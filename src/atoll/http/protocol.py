"""One connection of the server: bytes in, exchanges one after another, and the end.

`data_received` passes bytes to the method that the state calls for (`_receive`): a head, a body by length or chunked, bytes held back
while a request is being answered (pipelined requests, or what follows an upgrade), a hijacked stream, or nothing any more. A task answers
requests one after another and ends when none waits, so an idle connection costs no task; deadlines are a number that the server's sweep
looks at, so a request costs no timer.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from atoll.http.connection import Connection
from atoll.http.errors import Disconnected, ProtocolError
from atoll.http.exchange import ErrorHandler, Exchange, Handler
from atoll.http.hangup import HangUp
from atoll.http.inbox import Inbox
from atoll.http.limits import Limits
from atoll.http.parser import RefusedHead, RequestParser
from atoll.http.request import Peer
from atoll.http.response import status_line

HELD_MAX = 64 * 1024  # bytes kept for after the current request before the client is paused
HEAD_END = b"\r\n\r\n"
UPPER_CASE = range(65, 91)  # what a method begins with


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
    """The server's side of one connection."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.owner = owner
        self.limits = owner.limits
        self.parser = RequestParser(self._feed_body)
        self.eof = False  # the client has ended its direction
        self.deadline = 0.0  # loop time at which `expire` is called; 0: never
        self.task: asyncio.Task[None] | None = None  # while requests are being answered
        self._loop = loop
        self._receive = self._receive_head
        self._head = b""  # an unfinished head
        self._held = b""
        self._overdue = False  # a last deadline is running
        self._remaining = 0  # bytes of a body by length still to come
        self._exchange: Exchange | None = None
        self._hang_up: HangUp | None = None  # watched for once the client has ended its direction

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = _peer_of(transport)
        self._name = f"http {self.peer.address}"
        owner = self.owner
        crowded = len(owner.connections) >= self.limits.connections
        owner.connections.add(self)
        self.deadline = self._loop.time() + self.limits.idle_timeout
        owner.watch_deadlines()
        if crowded:
            self.refuse(503, "too many connections")
        elif owner.closing:
            self.close_transport()

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> bool:
        self.eof = True
        if self._exchange is None or self._receive == self._ignore:
            return False  # idle, in a head, or lingering: nothing to answer
        self._exchange.hang_up()
        if self.tls:
            return False
        sock = self.transport.get_extra_info("socket")
        self._hang_up = HangUp(self._loop, sock.fileno(), self.transport.abort)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._hang_up is not None:
            self._hang_up.close()
        self.owner.connections.discard(self)
        self.eof = True
        exchange = self._exchange
        if exchange is not None:
            if exchange.stream is not None and exchange.inbox is not None:
                if exc is None:
                    exchange.inbox.feed_eof()
                else:
                    exchange.inbox.fail(Disconnected(f"the connection broke: {exc}"))
            exchange.hang_up()

    # The server's side

    def expire(self) -> None:
        """The deadline has passed: what that means depends on what we wait for."""
        self.deadline = 0.0
        if self._receive == self._receive_head and self._head:
            self.refuse(408, "the request's head did not arrive in time")
        elif self._receive == self._receive_head:
            self.close_transport()
        elif not self._overdue and self.transport.get_write_buffer_size():
            self._overdue = True
            self.deadline = self._loop.time() + self.limits.idle_timeout  # still sending to a slow client
        else:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """The server is going: idle connections at once, busy ones after their response."""
        if self.task is None and not self.lost:
            self.close_transport()

    # Receiving, one method for each state

    def _receive_head(self, data: bytes) -> None:
        start = 0
        if self._head:
            start = max(0, len(self._head) - 3)
            data = self._head + data
        elif data[0] in b"\r\n":
            data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: ignore empty lines before a request
        end = data.find(HEAD_END, start) + 4
        if end < 4 or end > self.limits.head:
            self._await_head(data)
            return
        self._head = b""
        rest = data[end:]
        if rest:
            data = data[:end]
        parser = self.parser
        try:
            parser.parse_head(data, self.limits.head)
        except RefusedHead as error:
            self.refuse(error.status, str(error))
            return
        self.deadline = 0.0
        self._exchange = Exchange(self)
        self._remaining = parser.length
        self._receive = self._receive_chunked if parser.chunked else self._receive_length if parser.length else self._hold
        if rest:
            self._receive(rest)
        if self.task is None:
            self.task = self._loop.create_task(self._serve(), name=self._name)

    def _await_head(self, data: bytes) -> None:
        """An unfinished head, or one that is too long, or noise in which no blank line may ever come."""
        if len(data) > self.limits.head:
            self.refuse(431, f"the request's head is larger than {self.limits.head} bytes")
        elif data and data[0] not in UPPER_CASE:
            self.refuse(400, "this is not HTTP/1.1")
        elif data:
            if not self._head:
                self.deadline = self._loop.time() + self.limits.head_timeout
            self._head = data

    def _receive_length(self, data: bytes) -> None:
        rest = data[self._remaining :]
        if rest:
            data = data[: self._remaining]
        self._remaining -= len(data)
        self._feed_body(data)
        if not self._remaining:
            self._end_body()
            if rest:
                self._hold(rest)

    def _receive_chunked(self, data: bytes) -> None:
        try:
            self.parser.feed_chunked(data)
        except ProtocolError as error:
            self._receive = self._ignore
            if self._exchange is not None:
                self._exchange.keep_alive = False
                if not self.parser.body_complete and self._exchange.inbox is not None:
                    self._exchange.inbox.fail(error)
        if self.parser.body_complete:
            self._end_body()

    def _feed_body(self, data: bytes) -> None:
        if self._exchange is not None and self._exchange.inbox is not None:
            self._exchange.inbox.feed(data)

    def _end_body(self) -> None:
        if self._exchange is not None and self._exchange.inbox is not None:
            self._exchange.inbox.feed_eof()
        if self._receive != self._ignore:
            self._receive = self._hold

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD_MAX:
            self.transport.pause_reading()

    def _ignore(self, data: bytes) -> None:
        """Reading on only so that the client gets our response before a reset."""

    @property
    def holding(self) -> bool:
        """What comes after the current request is kept untouched: the connection can be hijacked."""
        return self._receive == self._hold

    def hijack(self, inbox: Inbox) -> None:
        """From here on every byte goes to the inbox, those held back first."""
        self._receive = inbox.feed
        held, self._held = self._held, b""
        self._resume_reading()
        if held:
            inbox.feed(held)
        if self.eof:
            inbox.feed_eof()

    # Answering

    async def _serve(self) -> None:
        handler = self.owner.handler
        try:
            while self._exchange is not None:
                await self._exchange.run(handler)
                self._finish(self._exchange)
        except asyncio.CancelledError:
            if not self.lost:
                self.transport.abort()
            raise
        finally:
            self.task = None

    def _finish(self, exchange: Exchange) -> None:
        """After an answer: close, linger, or go on to the next request."""
        now = self._loop.time()
        self._exchange = None
        if self.lost:
            return
        if exchange.keep_alive and self._receive == self._hold:
            self._next(now)
        elif exchange.stream is not None:
            self.close()
        elif exchange.body_complete and not self._held and self._receive == self._hold:
            self._receive = self._ignore
            self.deadline = now + self.limits.idle_timeout
            self.close_transport()
        else:
            self._linger()

    def _next(self, now: float) -> None:
        self._receive = self._receive_head
        self.deadline = now + self.limits.idle_timeout
        if self._held:
            held, self._held = self._held, b""
            self._resume_reading()
            self._receive_head(held)
        if self._exchange is None and (self.eof or self.owner.closing) and self._receive == self._receive_head:
            self.close_transport()

    def close(self) -> None:
        """The hijacked stream's end. What the client still sends must not reset the connection before it has read our last bytes."""
        if self._receive == self._ignore:
            return
        if self._exchange is not None and self._exchange.inbox is not None:
            self._exchange.inbox.feed_eof()
        if self.tls:
            self._receive = self._ignore
            self.deadline = self._loop.time() + self.limits.idle_timeout
            self.close_transport()  # its closing handshake reads on
        else:
            self._linger()

    def refuse(self, status: int, message: str) -> None:
        """Answer what cannot become a request, or broke while it was one, and close."""
        if self.lost:
            return
        body = f"{message}\n".encode()
        framing = b"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(status_line(status) + self.owner.date() + framing + body)
        if self._exchange is not None:
            self._exchange.responded = True
            self._exchange.keep_alive = False
        self._linger()

    def _linger(self) -> None:
        """Half-close and read on for a moment: closing with unread input would reset the connection, response and all (RFC 9112, 9.6)."""
        self._receive = self._ignore
        self._head = self._held = b""
        self.deadline = self._loop.time() + self.limits.linger
        if self.eof:
            self.close_transport()
        else:
            if self.can_write_eof:
                self.transport.write_eof()
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


def _peer_of(transport: asyncio.BaseTransport) -> Peer:
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        address = f"{host}:{name[1]}"
    else:
        address = "unix"
    session = transport.get_extra_info("ssl_object")
    return Peer(address, session.getpeercert(binary_form=True) if session is not None else None)
