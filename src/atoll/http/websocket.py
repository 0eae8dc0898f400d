"""WebSocket (RFC 6455) over an upgraded connection: accept on the server, connect on the client; frames by wsproto.

kubectl's exec, attach and port-forward, the Python client's stream and the dashboard come this way. Only the handshake is written here;
wsproto does masking, fragments, UTF-8 and the order of closing. Pings are answered while somebody receives.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import NoReturn

from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from atoll.errors import InvalidInput
from atoll.http.client import Client
from atoll.http.errors import Disconnected, ProtocolError, UpgradeRefused
from atoll.http.inbox import READ_MAX
from atoll.http.request import Request
from atoll.http.stream import Stream

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
MESSAGE_MAX = 4 * 1024 * 1024  # bytes; kubectl sends 32 KiB at a time
CLOSE_WAIT_S = 2.0  # for the peer's half of the closing handshake
REFUSAL_MAX = 64 * 1024  # bytes of a refusal's body that are kept
TOO_BIG = 1009
PROTOCOL_ERROR = 1002


class WebSocket:
    """Messages both ways. One task may receive while others send. `close_code` is the peer's, None before (1006: it vanished)."""

    def __init__(self, stream: Stream, kind: ConnectionType, subprotocol: str | None, message_max: int = MESSAGE_MAX) -> None:
        self.subprotocol = subprotocol
        self.close_code: int | None = None
        self._stream = stream
        self._framing = Framing(kind)
        self._message_max = message_max
        self._pieces: list[bytes] = []
        self._size = 0
        self._receiving = False
        self._ended = asyncio.Event()

    async def receive(self) -> bytes | None:
        """The next message (text as UTF-8); None when the peer has closed or gone. ProtocolError for broken or too large ones."""
        self._receiving = True
        try:
            while not self._ended.is_set():
                message = self._next_message()
                if message is not None:
                    return message
                if not self._ended.is_set():
                    await self._read_some()
            return None
        finally:
            self._receiving = False

    async def send(self, message: bytes | str) -> None:
        """Send a message, bytes as binary, str as text, at the peer's pace. Disconnected when it has closed."""
        self.send_nowait(message)
        await self._stream.drain()

    def send_nowait(self, message: bytes | str) -> None:
        """Queue a message without waiting for the peer to keep up."""
        self._send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def ping(self, payload: bytes = b"") -> None:
        self._send(Ping(payload))
        await self._stream.drain()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, wait a moment for the peer's goodbye, close the connection. No effect when it is closed."""
        if not self._ended.is_set():
            with contextlib.suppress(Disconnected, ProtocolError, TimeoutError):
                self.send_close(code, reason)
                async with asyncio.timeout(CLOSE_WAIT_S):
                    if self._receiving:
                        await self._ended.wait()
                    while not self._ended.is_set():
                        if self._next_message() is None and not self._ended.is_set():
                            await self._read_some()
        self._ended.set()
        self._stream.close()

    def as_stream(self) -> WebSocketStream:
        """The binary messages as one byte stream: how SPDY travels in WebSocket."""
        return WebSocketStream(self, self._stream)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Queue a goodbye without waiting for the peer's; Disconnected when one was sent before."""
        self._send(CloseConnection(code, reason))

    def _send(self, event: Event) -> None:
        try:
            self._stream.write(self._framing.send(event))
        except LocalProtocolError as error:
            raise Disconnected(f"the WebSocket is closed: {error}") from None

    async def _read_some(self) -> None:
        try:
            data = await self._stream.read()
        except Disconnected:
            data = b""
        if not data:
            self._end(self.close_code or 1006)  # RFC 6455, 7.1.5: closed without a word
            return
        self._framing.receive_data(data)

    def _next_message(self) -> bytes | None:
        """Work through what has arrived up to a whole message; None when there is none yet, or no more (then _ended is set).

        wsproto reads frames as its events are asked for, so what follows the message, a goodbye perhaps, does not take effect before it.
        """
        try:
            for event in self._framing.events():
                if isinstance(event, (TextMessage, BytesMessage)):
                    if (message := self._add(event)) is not None:
                        return message
                elif isinstance(event, Ping):
                    with contextlib.suppress(Disconnected):
                        self._send(event.response())
                elif isinstance(event, CloseConnection):
                    if self._framing.state is ConnectionState.OPEN:  # wsproto's own verdict on what it could not parse
                        self._fail(int(event.code), f"the WebSocket's peer broke the protocol: {event.reason}")
                    with contextlib.suppress(Disconnected):
                        self._send(event.response())
                    self._end(int(event.code))
                    break
        except RemoteProtocolError as error:
            self._fail(PROTOCOL_ERROR, f"the WebSocket's peer broke the protocol: {error}")
        return None

    def _add(self, event: TextMessage | BytesMessage) -> bytes | None:
        piece = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
        self._size += len(piece)
        if self._size > self._message_max:
            self._fail(TOO_BIG, f"a WebSocket message has more than {self._message_max} bytes")
        self._pieces.append(piece)
        if not event.message_finished:
            return None
        message = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return message

    def _fail(self, code: int, message: str) -> NoReturn:
        with contextlib.suppress(Disconnected):
            self.send_close(code, message[:100])
        self._end(code)
        raise ProtocolError(message)

    def _end(self, code: int) -> None:
        self.close_code = code
        self._ended.set()


class WebSocketStream:
    """A Duplex over binary messages; their borders mean nothing. A WebSocket cannot half-close."""

    can_write_eof = False

    def __init__(self, socket: WebSocket, stream: Stream) -> None:
        self._socket = socket
        self._stream = stream
        self._left = b""

    async def read(self, n: int = READ_MAX) -> bytes:
        while not self._left:
            message = await self._socket.receive()
            if message is None:
                return b""
            self._left = message
        data, self._left = self._left[:n], self._left[n:]
        return data

    def write(self, data: bytes) -> None:
        self._socket.send_nowait(data)

    async def drain(self) -> None:
        await self._stream.drain()

    def write_eof(self) -> None:
        """Without effect: see can_write_eof."""

    def close(self) -> None:
        """Send a goodbye and close once it is flushed, without waiting for the peer's."""
        with contextlib.suppress(Disconnected):
            self._socket.send_close()
        self._stream.close()

    async def wait_closed(self) -> None:
        await self._stream.wait_closed()


async def accept(
    request: Request, subprotocols: Sequence[str] = (), headers: Iterable[tuple[str, str]] = (), *, message_max: int = MESSAGE_MAX
) -> WebSocket:
    """Upgrade the request; the subprotocol is the first the client names that is in `subprotocols`, None where it names none.

    Raises InvalidInput, before anything is sent, for a request that is no WebSocket handshake, or names only subprotocols unknown here.
    """
    key = request.headers.get("sec-websocket-key", "")
    if request.method != "GET" or (request.upgrade_token or "").lower() != "websocket" or not key:
        raise InvalidInput(f"{request.path} wants a WebSocket handshake: GET with Upgrade: websocket and Sec-WebSocket-Key")
    if request.headers.get("sec-websocket-version") != "13":
        raise InvalidInput("the only WebSocket version spoken here is 13")
    offered = request.headers.tokens("sec-websocket-protocol")
    chosen = next((name for name in offered if name in subprotocols), None)
    if chosen is None and offered and subprotocols:
        raise InvalidInput(f"none of the subprotocols {', '.join(offered)} is spoken here; known: {', '.join(subprotocols)}")
    fields = [("Sec-WebSocket-Accept", _accept_value(key)), *headers]
    if chosen is not None:
        fields.append(("Sec-WebSocket-Protocol", chosen))
    return WebSocket(await request.upgrade(fields, 101), ConnectionType.SERVER, chosen, message_max)


async def connect(
    client: Client,
    target: str,
    subprotocols: Sequence[str] = (),
    headers: Iterable[tuple[str, str]] = (),
    *,
    message_max: int = MESSAGE_MAX,
) -> WebSocket:
    """Open a WebSocket. Raises UpgradeRefused with the server's status and body, ProtocolError for a wrong handshake, Unavailable."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", key), *headers]
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    response, stream = await client.upgrade("GET", target, fields)
    if stream is None:
        async with response:
            raise UpgradeRefused(f"{client.base}{target} refused a WebSocket", response.status, await response.read(REFUSAL_MAX))
    chosen = response.headers.get("sec-websocket-protocol")
    if response.headers.get("sec-websocket-accept") != _accept_value(key) or (chosen is not None and chosen not in subprotocols):
        stream.abort()
        raise ProtocolError(f"{client.base}{target} answered a WebSocket handshake wrongly")
    return WebSocket(stream, ConnectionType.CLIENT, chosen, message_max)


def _accept_value(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + ACCEPT_GUID, usedforsecurity=False).digest()).decode()
