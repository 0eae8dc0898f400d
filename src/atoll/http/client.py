"""The client: requests over unix, http and https, with pooled connections."""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncIterator, Iterable
from typing import Self

from atoll.http.headers import Headers
from atoll.http.stream import Stream


class ClientResponse:
    """`status`, `headers`; the body by read(), or piece by piece with `async for`. Also an async context manager that closes."""

    status: int
    headers: Headers

    async def read(self, limit: int | None = None) -> bytes:
        """The rest of the body; BodyTooLarge beyond `limit`."""
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they arrive."""
        raise NotImplementedError

    def close(self) -> None:
        """Done with it: the connection is reused when the body was read to its end, else cut."""
        raise NotImplementedError


class Client:
    """A client of one server, `unix:///path`, `http://host:port` or `https://host:port`. Raises Unavailable naming it."""

    def __init__(
        self,
        base: str,
        ssl: tls.SSLContext | None = None,
        headers: Iterable[tuple[str, str]] = (),
        *,
        server_hostname: str | None = None,
        timeout: float | None = 60.0,
    ) -> None:
        raise NotImplementedError

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> ClientResponse:
        """Send a request and wait for the head of its response, `timeout` seconds at most (0: for ever)."""
        raise NotImplementedError

    async def upgrade(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> tuple[ClientResponse, Stream | None]:
        """Ask for an upgrade (headers name it). The stream is None when the server answered otherwise than 101."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
