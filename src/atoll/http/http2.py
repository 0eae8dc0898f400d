"""HTTP/2 (RFC 9113) over any Duplex, as either side, with prior knowledge: what gRPC speaks on a connection that was upgraded to "h2c".

The protocol itself is `h2`'s, a state machine without I/O; this module feeds it from a Duplex, shares its events out among streams, and
keeps both flow controls: bytes are acknowledged as their reader takes them, and a writer waits for the peer's window. A connection hijacked
from HTTP/1.1 may be served or be our way to call back, as BuildKit's `/grpc` and `/session` want it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

from atoll.http.errors import Disconnected
from atoll.http.http2_stream import Http2Stream, Pairs, as_pairs
from atoll.http.stream import Duplex

__all__ = ["Http2", "Http2Stream"]

log = logging.getLogger(__name__)

STREAM_WINDOW = 8 << 20  # bytes a stream's reader may be behind
CONNECTION_WINDOW = 64 << 20  # and all of them together
FRAME_MAX = 256 * 1024  # bytes; the work is by the frame
STREAMS_MAX = 256  # that the peer may have open at once
READ = 256 * 1024
CLOSE_WAIT_S = 1.0  # for the peer to take our last frames and hang up


def _size_alone(frame: Any) -> str:
    return f"{len(frame.data)} bytes"


# h2 words every frame it receives for a trace that nobody reads, with a hex dump of the whole body: more than the frame itself costs.
DataFrame._body_repr = _size_alone  # type: ignore[assignment, method-assign]  # noqa: SLF001  the one hook hyperframe has for it


class Http2:
    """Streams over one Duplex, which it owns, and the task that reads. Use as an async context manager."""

    def __init__(self, duplex: Duplex, *, client: bool) -> None:
        self._duplex = duplex
        self._state = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self._streams: dict[int, Http2Stream] = {}
        self._incoming: asyncio.Queue[Http2Stream | None] = asyncio.Queue()  # bounded by STREAMS_MAX
        self._wider = asyncio.Event()  # a window of the peer's has grown
        self._closed = asyncio.Event()
        self._refused = False  # the peer wants no more streams
        self._state.initiate_connection()
        self._state.update_settings(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.MAX_FRAME_SIZE: FRAME_MAX,
            }
        )
        self._state.increment_flow_control_window(CONNECTION_WINDOW)
        self.flush()
        self._reader = asyncio.get_running_loop().create_task(self._run(), name="http/2 connection")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def ended(self) -> bool:
        return self._closed.is_set()

    async def wait_ended(self) -> None:
        """Return when the peer has gone, or `close` was called."""
        await self._closed.wait()

    async def incoming(self) -> AsyncIterator[Http2Stream]:
        """Requests as the peer makes them; ends with the connection."""
        while (stream := await self._incoming.get()) is not None:
            yield stream

    def open(self, headers: Pairs) -> Http2Stream:
        """A request of our own. Raises Disconnected."""
        if self.ended or self._refused:
            raise Disconnected("the HTTP/2 connection has ended")
        stream = Http2Stream(self, self._state.get_next_available_stream_id())
        self._state.send_headers(stream.id, headers)
        self._streams[stream.id] = stream
        self.flush()
        return stream

    async def close(self) -> None:
        """Say GOAWAY, let the peer hang up first for a moment, then close the connection."""
        if not self.ended:
            with contextlib.suppress(Disconnected, H2Error):
                self._state.close_connection()
                self.flush()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_WAIT_S):
                        await self._duplex.drain()
        self._reader.cancel()
        await asyncio.wait((self._reader,))

    # The streams' side

    def flush(self) -> None:
        data = self._state.data_to_send()
        if data and not self._closed.is_set():
            self._duplex.write(data)

    def send_headers(self, stream: Http2Stream, headers: Pairs, *, end: bool) -> None:
        self._state.send_headers(stream.id, headers, end_stream=end)
        self.flush()

    async def send_data(self, stream: Http2Stream, data: bytes) -> None:
        """All of it, as the windows allow. Raises Disconnected where the stream ends before."""
        view = memoryview(data)
        while view:
            stream.check()
            size = min(self._state.local_flow_control_window(stream.id), self._state.max_outbound_frame_size, len(view))
            if size <= 0:
                self._wider.clear()
                await self._wider.wait()
                continue
            self._state.send_data(stream.id, bytes(view[:size]))
            view = view[size:]
            self.flush()
            await self._duplex.drain()

    def end_stream(self, stream: Http2Stream) -> None:
        self._state.end_stream(stream.id)
        self.flush()

    def consumed(self, stream: Http2Stream, count: int) -> None:
        """A reader took bytes: give the windows back."""
        if not self.ended:
            self._state.acknowledge_received_data(count, stream.id)
            self.flush()

    def reset(self, stream: Http2Stream, code: ErrorCodes) -> None:
        with contextlib.suppress(H2Error, Disconnected):  # closed already
            if not self.ended:
                self._state.reset_stream(stream.id, code)
                self.flush()
        self.forget(stream)
        self._wider.set()

    def forget(self, stream: Http2Stream) -> None:
        """Both directions have ended."""
        self._streams.pop(stream.id, None)

    # The reading task

    async def _run(self) -> None:
        error: Exception = Disconnected("the peer ended the HTTP/2 connection")
        try:
            while data := await self._duplex.read(READ):
                for event in self._state.receive_data(data):
                    self._dispatch(event)
                self.flush()
                await self._duplex.drain()
        except Disconnected as gone:
            error = gone
        except H2Error as broken:
            error = Disconnected(f"the HTTP/2 connection broke: {broken}")
            log.info("%s", error)
            with contextlib.suppress(Disconnected):
                self.flush()  # h2 has put its GOAWAY there
        finally:
            self._closed.set()
            self._wider.set()
            for stream in list(self._streams.values()):
                stream.broken(error)
            self._streams.clear()
            self._incoming.put_nowait(None)
            self._duplex.close()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            stream = Http2Stream(self, event.stream_id, as_pairs(event.headers))
            self._streams[event.stream_id] = stream
            self._incoming.put_nowait(stream)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._wider.set()
        elif isinstance(event, ConnectionTerminated):
            self._refused = True  # what is open goes on
        elif isinstance(event, DataReceived | ResponseReceived | TrailersReceived | StreamEnded | StreamReset):
            self._to_stream(event)

    def _to_stream(self, event: DataReceived | ResponseReceived | TrailersReceived | StreamEnded | StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            if isinstance(event, DataReceived) and event.flow_controlled_length:  # of a stream we have reset: only the connection's window
                self._state.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, DataReceived):
            stream.receive(event.data, event.flow_controlled_length)
        elif isinstance(event, ResponseReceived):
            stream.answer(as_pairs(event.headers))
        elif isinstance(event, TrailersReceived):
            stream.trail(as_pairs(event.headers))
        elif isinstance(event, StreamEnded):
            stream.remote_end()
        else:
            self._streams.pop(event.stream_id)
            stream.broken(Disconnected(f"the peer reset HTTP/2 stream {event.stream_id}: {_name(event.error_code)}"))
            self._wider.set()


def _name(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)
