"""One request, as a handler sees it.

The head is complete when the handler is called; the body is read on demand, so that a handler may stream gigabytes or refuse before the
first byte (an `Expect: 100-continue` is answered when the body is first asked for). Decoding of path, query and headers happens on first
use. The connection stands behind the small `Exchange` protocol, so a Request can also be made in process, for tests and in-process calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from atoll.errors import NotSupported
from atoll.http.errors import BodyTimeout, BodyTooLarge
from atoll.http.headers import Headers, Query
from atoll.http.limits import Limits
from atoll.http.stream import Stream
from atoll.http.writer import ResponseWriter


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: "unix", or "address:port"; over TLS the verified client certificate in DER."""

    address: str
    certificate: bytes | None = None


class Exchange(Protocol):
    """What a request needs of the connection it came by."""

    limits: Limits

    def body_at_hand(self) -> bytes | None: ...
    async def read_body(self) -> bytes: ...
    def start(self, status: int, headers: Iterable[tuple[str, str]]) -> ResponseWriter: ...
    async def upgrade(self, status: int, headers: Iterable[tuple[str, str]], reason: bytes = b"") -> Stream: ...
    async def wait_disconnected(self) -> None: ...


class InProcess:
    """The Exchange of a request that came by no connection: its body is at hand, nothing can be hijacked, nobody hangs up."""

    def __init__(self, body: bytes = b"", limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._body = body

    def body_at_hand(self) -> bytes | None:
        """The rest of the body where all of it has arrived, else None."""
        body, self._body = self._body, b""
        return body

    async def read_body(self) -> bytes:
        """The next piece of the body; b"" at its end."""
        return self.body_at_hand() or b""

    def start(self, status: int, headers: Iterable[tuple[str, str]]) -> ResponseWriter:
        raise NotSupported("a request made in process cannot stream its response")

    async def upgrade(self, status: int, headers: Iterable[tuple[str, str]], reason: bytes = b"") -> Stream:
        raise NotSupported("a request made in process has no connection to upgrade")

    async def wait_disconnected(self) -> None:
        await asyncio.get_running_loop().create_future()


class Request:
    """`method`; `target` as sent; `path`, raw, without the query; `segments`, its percent-decoded parts; `query`; `headers`; `peer`."""

    __slots__ = ("_exchange", "_query", "_segments", "headers", "method", "path", "peer", "target")

    def __init__(
        self, method: str, target: str, headers: Headers | None = None, peer: Peer | None = None, exchange: Exchange | None = None
    ) -> None:
        self.method = method
        self.target = target
        self.path = target if "?" not in target else target.partition("?")[0]
        self.headers = headers if headers is not None else Headers()
        self.peer = peer if peer is not None else IN_PROCESS
        self._exchange: Exchange = exchange if exchange is not None else InProcess()
        self._query: Query | None = None
        self._segments: tuple[str, ...] | None = None

    @property
    def query(self) -> Query:
        if self._query is None:
            self._query = Query(self.target.partition("?")[2])
        return self._query

    @property
    def segments(self) -> tuple[str, ...]:
        """("containers", "web", "json") for /containers/web/json; a final slash leaves a last "". Undecodable bytes become U+FFFD."""
        if self._segments is None:
            parts = self.path.removeprefix("/").split("/")
            self._segments = tuple([unquote(part) for part in parts] if "%" in self.path else parts)
        return self._segments

    @property
    def upgrade_token(self) -> str | None:
        """What `Upgrade` asks for ("tcp", "websocket", "SPDY/3.1"), where `Connection` names upgrade; else None."""
        if any(token.lower() == "upgrade" for token in self.headers.tokens("connection")):
            return self.headers.get("upgrade")
        return None

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body. BodyTooLarge beyond `limit` bytes (Limits.body by default), BodyTimeout beyond Limits.body_timeout."""
        exchange = self._exchange
        bound = exchange.limits.body if limit is None else limit
        at_hand = exchange.body_at_hand()
        if at_hand is not None:
            if len(at_hand) > bound:
                raise BodyTooLarge(f"the body of {self.method} {self.path} has {len(at_hand)} bytes; the limit is {bound}")
            return at_hand
        declared = self.headers.get("content-length")
        if declared is not None and int(declared) > bound:
            raise BodyTooLarge(f"the body of {self.method} {self.path} has {declared} bytes; the limit is {bound}")
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(exchange.limits.body_timeout):
                while piece := await exchange.read_body():
                    size += len(piece)
                    if size > bound:
                        raise BodyTooLarge(f"the body of {self.method} {self.path} is larger than the limit of {bound} bytes")
                    pieces.append(piece)
        except TimeoutError:
            raise BodyTimeout(f"the body of {self.method} {self.path} did not arrive within {exchange.limits.body_timeout:g} s") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive, without a bound on their sum; the sender is slowed to the reader's pace.

        Raises Disconnected when the client goes before the end, ProtocolError where the chunked coding is broken.
        """
        while piece := await self._exchange.read_body():
            yield piece

    def start(self, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> ResponseWriter:
        """Send the head now and get a writer for the body: for streams pushed from elsewhere. The handler then returns None,
        which ends the body; if it raises instead, the connection is cut so that the client sees a truncated body.
        """
        return self._exchange.start(status, headers)

    async def upgrade(self, headers: Iterable[tuple[str, str]] = (), status: int | None = None, reason: bytes = b"") -> Stream:
        """Take the connection over: sends 101 where the client asked for an upgrade, else 200 (as Docker does), and returns the raw
        stream. Read the body first, with body(). `Connection` and `Upgrade` are added to a 101 unless given;
        `reason` are its words on the status line, where they are not HTTP's own.

        The stream is the handler's until it returns None; it is then flushed and closed.
        """
        if status is None:
            status = 101 if self.upgrade_token else 200
        return await self._exchange.upgrade(status, headers, reason if status == 101 else b"")

    async def wait_disconnected(self) -> None:
        """Return when the client has gone (or has half-closed a connection that was not upgraded)."""
        await self._exchange.wait_disconnected()

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"


IN_PROCESS = Peer("in process")
