"""WebSocket (RFC 6455), server and client, over an upgraded connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from atoll.http.client import Client
from atoll.http.request import Request
from atoll.http.stream import Duplex


class WebSocket:
    """Messages both ways."""

    subprotocol: str | None

    async def receive(self) -> bytes | None:
        """The next message (text as UTF-8); None when the peer has closed. Pings are answered inside."""
        raise NotImplementedError

    async def send(self, message: bytes | str) -> None:
        """Send a message: bytes as binary, str as text."""
        raise NotImplementedError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        raise NotImplementedError

    def as_stream(self) -> Duplex:
        """The binary messages as one byte stream: SPDY tunnelled in WebSocket."""
        raise NotImplementedError


async def accept(request: Request, subprotocols: Sequence[str] = (), headers: Iterable[tuple[str, str]] = ()) -> WebSocket:
    """Upgrade the request, choosing the first of the client's subprotocols that is in `subprotocols`."""
    raise NotImplementedError


async def connect(client: Client, target: str, subprotocols: Sequence[str] = (), headers: Iterable[tuple[str, str]] = ()) -> WebSocket:
    """Open a WebSocket. Raises Unavailable or InvalidInput with the server's answer when it refuses."""
    raise NotImplementedError
