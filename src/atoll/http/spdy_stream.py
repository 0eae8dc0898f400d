"""One stream of a SPDY session, as a Duplex: each direction has an end of its own, and a window where the peer keeps windows."""

from __future__ import annotations

import asyncio
import struct
from typing import Protocol

from atoll.http.errors import Disconnected
from atoll.http.headers import Headers
from atoll.http.inbox import READ_MAX, Inbox
from atoll.http.spdy_frames import FIN, FrameType, ResetStatus, control_frame, data_frame

CREDIT_STEP = 32 * 1024  # bytes consumed before the peer is told; half of the initial window


class SessionSide(Protocol):
    """What a stream needs of its session."""

    ended: bool

    def send(self, data: bytes) -> None: ...
    def send_data(self, stream: SpdyStream, data: bytes, window: int) -> int: ...
    async def drain(self) -> None: ...
    def consumed(self, count: int) -> None: ...
    def forget(self, stream: SpdyStream) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class SpdyStream:
    """`id`; `headers`, those it was opened with, by any case (streamType, port, requestID)."""

    can_write_eof = True

    def __init__(self, session: SessionSide, stream_id: int, headers: Headers, window: int) -> None:
        self.id = stream_id
        self.headers = headers
        self.local_ended = False  # no more from us
        self._remote_ended = False
        self._session = session
        self._inbox = Inbox(session)
        self._window = window
        self._credit = 0
        self._pending = bytearray()  # written, waiting for the window
        self._fin_due = False
        self._discards = False  # closed here: what still comes is dropped
        self._error: Exception | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._closed = asyncio.Event()

    async def read(self, n: int = READ_MAX) -> bytes:
        """Up to n bytes; b"" when the peer has ended its direction. Disconnected when it reset the stream or the session broke."""
        data = await self._inbox.read(n)
        self._consumed(len(data))
        return data

    def write(self, data: bytes) -> None:
        """Queue bytes. Disconnected when the stream is closed, here or there."""
        if self._error is not None:
            raise self._error
        if self.local_ended or self._fin_due:
            raise Disconnected(f"SPDY stream {self.id} was ended before")
        if self._pending:
            self._pending += data
            return
        sent = self._session.send_data(self, data, self._window)
        self._window -= sent
        if sent < len(data):
            self._pending += data[sent:]

    async def drain(self) -> None:
        """Wait for the window and for the connection."""
        if self._error is not None:
            raise self._error
        if self._pending:
            waiter = asyncio.get_running_loop().create_future()
            self._drainers.append(waiter)
            await waiter
        await self._session.drain()

    def write_eof(self) -> None:
        """End our direction, once what was written is sent."""
        if self.local_ended or self._fin_due or self._error is not None:
            return
        self._fin_due = True
        self._flush()

    def close(self) -> None:
        """End our direction; what the peer still sends is dropped."""
        if self._error is None and not self._session.ended:
            self.write_eof()
        self._discards = True
        self._consumed(len(self._inbox.take_all()))

    def reset(self, status: ResetStatus = ResetStatus.CANCEL) -> None:
        """Break both directions off."""
        if self._error is None and not self._closed.is_set():
            if not self._session.ended:
                self._session.send(control_frame(FrameType.RST_STREAM, struct.pack(">II", self.id, status)))
            self.broken(Disconnected(f"SPDY stream {self.id} was reset here"))
            self._session.forget(self)

    async def wait_closed(self) -> None:
        await self._closed.wait()

    # The session's side

    def receive(self, data: bytes) -> None:
        if self._discards or self._remote_ended:
            self._consumed(len(data))
        else:
            self._inbox.feed(data)

    def remote_end(self) -> None:
        self._remote_ended = True
        self._inbox.feed_eof()
        self._settle()

    def broken(self, error: Exception) -> None:
        """The peer reset the stream, or the session has ended."""
        if self._closed.is_set():
            return
        self._error = error
        self._inbox.fail(error)
        if not self._session.ended:  # after a reset nothing is read any more, and a full inbox must not stall the session
            self._discards = True
            self._consumed(len(self._inbox.take_all()))
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_exception(error)
        self._drainers.clear()
        self._closed.set()

    def widen(self, delta: int) -> None:
        """The window, or the session's, has grown."""
        self._window += delta
        self._flush()

    def _flush(self) -> None:
        if self._pending:
            sent = self._session.send_data(self, bytes(self._pending), self._window)
            self._window -= sent
            del self._pending[:sent]
        if self._pending:
            return
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()
        if self._fin_due and not self.local_ended:
            self.local_ended = True
            self._session.send(data_frame(self.id, b"", FIN))
            self._settle()

    def _consumed(self, count: int) -> None:
        if count and not self._session.ended:
            self._session.consumed(count)
            self._credit += count
            if self._credit >= CREDIT_STEP and not self._remote_ended:
                self._session.send(control_frame(FrameType.WINDOW_UPDATE, struct.pack(">II", self.id, self._credit)))
                self._credit = 0

    def _settle(self) -> None:
        if self.local_ended and self._remote_ended:
            self._closed.set()
            self._session.forget(self)
