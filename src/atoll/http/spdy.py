"""SPDY/3.1 sessions over any Duplex, as kubectl's exec and port-forward speak it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from atoll.http.headers import Headers
from atoll.http.request import Request
from atoll.http.stream import Duplex


class SpdyStream:
    """One stream of a session, a Duplex; `headers` are those it was opened with (streamType, port, requestID)."""

    id: int
    headers: Headers

    @property
    def can_write_eof(self) -> bool:
        return True

    async def read(self, n: int = 65536) -> bytes:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        raise NotImplementedError

    def write_eof(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    async def wait_closed(self) -> None:
        raise NotImplementedError


class Session:
    """Streams over one Duplex; use as an async context manager: it owns the reading task."""

    def __init__(self, duplex: Duplex, *, client: bool = False) -> None:
        raise NotImplementedError

    def incoming(self) -> AsyncIterator[SpdyStream]:
        """Streams as the peer opens them, until it goes."""
        raise NotImplementedError

    async def open(self, headers: Iterable[tuple[str, str]]) -> SpdyStream:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


async def accept(request: Request, protocols: Sequence[str] = (), headers: Iterable[tuple[str, str]] = ()) -> tuple[Session, str | None]:
    """Upgrade to SPDY/3.1; X-Stream-Protocol-Version is the first of the client's in `protocols`, InvalidInput when none is."""
    raise NotImplementedError
