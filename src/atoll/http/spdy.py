"""SPDY/3.1 sessions over any Duplex, as kubectl's exec, attach, cp and port-forward speak it.

They run on a connection upgraded by `accept`, or inside a WebSocket's binary messages: `Session(websocket.as_stream())`, kubectl 1.31 and
later. Two kinds of peer have to be served. Those that keep the draft's flow control get WINDOW_UPDATEs as our readers consume, and are held
to no more than the windows they grant. The Go library in kubectl neither sends nor obeys them, and reads one stream at a time: so a send
window is enforced only once the peer has shown that it knows windows, and a stream whose reader is behind stops the reading of the whole
session, which bounds memory.

The API server passes such sessions on to the kubelet as bytes (`stream.splice`) once both sides are upgraded; it never needs to read them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Self

from atoll.errors import InvalidInput
from atoll.http.errors import Disconnected, ProtocolError
from atoll.http.headers import Headers
from atoll.http.request import Request
from atoll.http.spdy_frames import (
    FIN,
    ID_MASK,
    SETTING_INITIAL_WINDOW,
    UNIDIRECTIONAL,
    Frame,
    FrameParser,
    FrameType,
    HeaderCodec,
    ResetStatus,
    control_frame,
    data_frame,
)
from atoll.http.spdy_stream import SpdyStream
from atoll.http.stream import Duplex

__all__ = ["Session", "SpdyStream", "accept"]

log = logging.getLogger(__name__)

STREAMS_MAX = 1024  # open at once in a session; kubectl port-forward uses two for each connection
DATA_PIECE = 32 * 1024  # bytes of a data frame we send
CLOSE_WAIT_S = 2.0  # for the peer to hang up after our GOAWAY
INITIAL_WINDOW = 64 * 1024  # the draft's, for every stream and for the session
PROTOCOL_HEADER = "X-Stream-Protocol-Version"


class Session:
    """Streams over one Duplex. Use as an async context manager: it owns the task that reads, and the Duplex."""

    def __init__(self, duplex: Duplex, *, client: bool = False) -> None:
        self._duplex = duplex
        self._codec = HeaderCodec()
        self._streams: dict[int, SpdyStream] = {}
        self._incoming: asyncio.Queue[SpdyStream | None] = asyncio.Queue()  # bounded by STREAMS_MAX
        self._next_id = 1 if client else 2
        self._last_id = 0  # the peer's
        self._window = INITIAL_WINDOW  # what we may still send over all streams
        self._initial_window = INITIAL_WINDOW
        self._credit = 0  # consumed, not yet told to the peer
        self._stalled = 0  # streams whose readers are behind
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._farewell = asyncio.Event()  # the peer has said GOAWAY or hung up
        self.flow_controlled = False  # the peer knows windows
        self.ended = False
        self._reader = asyncio.get_running_loop().create_task(self._run(), name="spdy session")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def incoming(self) -> AsyncIterator[SpdyStream]:
        """Streams as the peer opens them, each answered already; ends with the session."""
        while (stream := await self._incoming.get()) is not None:
            yield stream

    async def open(self, headers: Iterable[tuple[str, str]]) -> SpdyStream:
        """Open a stream of our own. It may be written to at once, before the peer's reply."""
        pairs = list(headers)
        stream = SpdyStream(self, self._next_id, Headers(pairs), self._initial_window)
        self._next_id += 2
        self._streams[stream.id] = stream
        self.send(control_frame(FrameType.SYN_STREAM, struct.pack(">IIH", stream.id, 0, 0) + self._codec.encode(pairs)))
        await self.drain()
        return stream

    async def close(self) -> None:
        """End what streams are left, say GOAWAY, let the peer hang up first for a moment, then close the connection.

        kubectl may drop frames that it has not handled when it sees the connection's end, the exit status among them.
        """
        if not self.ended:
            with contextlib.suppress(Disconnected):
                for stream in list(self._streams.values()):
                    stream.close()
                self.send(control_frame(FrameType.GOAWAY, struct.pack(">II", self._last_id, 0)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_WAIT_S):
                        await self._farewell.wait()
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        self._duplex.close()

    # The streams' side

    def send(self, data: bytes) -> None:
        """Queue whole frames."""
        if self.ended:
            raise Disconnected("the SPDY session has ended")
        self._duplex.write(data)

    def send_data(self, stream: SpdyStream, data: bytes, window: int) -> int:
        """Send as much of the data as `window` and the session's window allow; returns how much that was."""
        size = len(data)
        if self.flow_controlled:
            size = max(0, min(size, window, self._window))
        for start in range(0, size, DATA_PIECE):
            self.send(data_frame(stream.id, data[start : min(start + DATA_PIECE, size)]))
        self._window -= size
        return size

    async def drain(self) -> None:
        await self._duplex.drain()

    def consumed(self, count: int) -> None:
        """A reader took bytes: give the session's window back, in halves."""
        self._credit += count
        if self._credit >= INITIAL_WINDOW // 2 and not self.ended:
            self.send(control_frame(FrameType.WINDOW_UPDATE, struct.pack(">II", 0, self._credit)))
            self._credit = 0

    def forget(self, stream: SpdyStream) -> None:
        """Both directions of the stream have ended."""
        self._streams.pop(stream.id, None)

    def pause_reading(self) -> None:
        self._stalled += 1
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._stalled -= 1
        if not self._stalled:
            self._may_read.set()

    # The reading task

    async def _run(self) -> None:
        parser = FrameParser()
        error: Exception = Disconnected("the peer ended the SPDY session")
        try:
            while data := await self._duplex.read():
                for frame in parser.feed(data):
                    self._dispatch(frame)
                await self._duplex.drain()
                await self._may_read.wait()
        except Disconnected as gone:
            error = gone
        except ProtocolError as broken:
            error = broken
            log.info("SPDY session broken: %s", broken)
            with contextlib.suppress(Disconnected):
                self.send(control_frame(FrameType.GOAWAY, struct.pack(">II", self._last_id, 1)))
        finally:
            self.ended = True
            self._farewell.set()
            for stream in list(self._streams.values()):
                stream.broken(error)
            self._streams.clear()
            self._incoming.put_nowait(None)
            self._duplex.close()

    def _dispatch(self, frame: Frame) -> None:
        kind = frame.type
        if kind == FrameType.DATA:
            self._on_data(frame)
        elif kind == FrameType.SYN_STREAM:
            self._on_syn_stream(frame)
        elif kind in (FrameType.SYN_REPLY, FrameType.HEADERS):
            self._codec.decode(frame.payload)  # nothing is read from it, but the shared zlib stream must see it
            if frame.flags & FIN and (stream := self._streams.get(frame.stream)):
                stream.remote_end()
        elif kind == FrameType.RST_STREAM:
            if stream := self._streams.pop(frame.stream, None):
                status = int.from_bytes(frame.payload[:4], "big")
                stream.broken(Disconnected(f"the peer reset SPDY stream {frame.stream} with status {status}"))
        elif kind == FrameType.WINDOW_UPDATE:
            self._on_window_update(frame)
        elif kind == FrameType.SETTINGS:
            self._on_settings(frame.payload)
        elif kind == FrameType.PING and (int.from_bytes(frame.payload, "big") ^ self._next_id) & 1:  # the peer's own, by parity
            self.send(control_frame(FrameType.PING, frame.payload))
        elif kind == FrameType.GOAWAY:
            self._farewell.set()  # its open streams go on; it closes the connection after them
        # Unknown types are ignored (2.2.1).

    def _on_data(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            self.consumed(len(frame.payload))
            if frame.stream == 0 or frame.stream > max(self._last_id, self._next_id):
                self._reset(frame.stream, ResetStatus.INVALID_STREAM)
            return
        if frame.payload:
            stream.receive(frame.payload)
        if frame.flags & FIN:
            stream.remote_end()

    def _on_syn_stream(self, frame: Frame) -> None:
        if len(frame.payload) < 6:
            raise ProtocolError("a SPDY SYN_STREAM frame is too short")
        headers = self._codec.decode(frame.payload[6:])
        if frame.stream <= self._last_id or not (frame.stream ^ self._next_id) & 1:
            raise ProtocolError(f"SPDY stream {frame.stream} is out of order or not the peer's to open")
        self._last_id = frame.stream
        if len(self._streams) >= STREAMS_MAX:
            self._reset(frame.stream, ResetStatus.REFUSED_STREAM)
            return
        stream = SpdyStream(self, frame.stream, headers, self._initial_window)
        self._streams[frame.stream] = stream
        if frame.flags & UNIDIRECTIONAL:
            stream.local_ended = True
        else:
            self.send(control_frame(FrameType.SYN_REPLY, struct.pack(">I", frame.stream) + self._codec.encode(())))
        if frame.flags & FIN:
            stream.remote_end()
        self._incoming.put_nowait(stream)

    def _on_window_update(self, frame: Frame) -> None:
        self.flow_controlled = True
        delta = int.from_bytes(frame.payload[:4], "big") & ID_MASK
        if frame.stream == 0:
            self._window += delta
            for stream in list(self._streams.values()):
                stream.widen(0)
        elif one := self._streams.get(frame.stream):
            one.widen(delta)

    def _on_settings(self, payload: bytes) -> None:
        if len(payload) < 4 or len(payload) != 4 + 8 * int.from_bytes(payload[:4], "big"):
            raise ProtocolError("a SPDY SETTINGS frame is malformed")
        for name, value in struct.iter_unpack(">II", payload[4:]):
            if name & 0xFF_FFFF == SETTING_INITIAL_WINDOW:
                self.flow_controlled = True
                delta = (value & ID_MASK) - self._initial_window
                self._initial_window += delta
                for stream in list(self._streams.values()):
                    stream.widen(delta)

    def _reset(self, stream: int, status: ResetStatus) -> None:
        self.send(control_frame(FrameType.RST_STREAM, struct.pack(">II", stream, status)))


async def accept(request: Request, protocols: Sequence[str] = (), headers: Iterable[tuple[str, str]] = ()) -> tuple[Session, str | None]:
    """Upgrade the request to SPDY/3.1. X-Stream-Protocol-Version is answered with the first the client names that is in `protocols`.

    Returns the session and that protocol, None where the client names none. Raises InvalidInput, before anything is sent, for a request
    that asks for no SPDY, or names only protocols unknown here.
    """
    if (request.upgrade_token or "").upper() != "SPDY/3.1":
        raise InvalidInput(f"{request.path} wants Connection: Upgrade and Upgrade: SPDY/3.1")
    offered = request.headers.tokens(PROTOCOL_HEADER)
    chosen = next((name for name in offered if name in protocols), None)
    if chosen is None and offered and protocols:
        raise InvalidInput(f"none of the stream protocols {', '.join(offered)} is spoken here; known: {', '.join(protocols)}")
    await request.body()
    fields = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), *headers]
    if chosen is not None:
        fields.append((PROTOCOL_HEADER, chosen))
    return Session(await request.upgrade(fields, 101)), chosen
