"""The client: requests over unix, http and https, with pooled connections.

A connection goes back to the pool when its response has arrived to the end, and is thrown away in every other case. The server may close
a pooled connection at the moment we reuse it; a request that is idempotent and can be sent again is then sent again, on another connection.
"""

from __future__ import annotations

import asyncio
import os
import ssl as tls
from collections.abc import AsyncIterator, Iterable
from typing import Self
from urllib.parse import urlsplit

from atoll.errors import InvalidInput, Unavailable
from atoll.http.client_connection import ClientConnection, ClientResponse
from atoll.http.errors import Disconnected
from atoll.http.proxy import Proxy, tunnel
from atoll.http.stream import Stream

__all__ = ["Client", "ClientResponse"]

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})  # RFC 9110, 9.2.2
IDLE_MAX = 16  # connections kept
IDLE_MAX_S = 60.0  # shorter than any server's idle timeout we know (our own 120 s)
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_PORTS = {"http": 80, "https": 443}


class Client:
    """A client of one server: `unix:///path`, `http://host:port` or `https://host:port`; a path after it prefixes every target.

    `headers` go with every request. `ssl` carries the trusted authorities and our certificate; `server_hostname` is the name to verify when
    it is not the URL's host. With `proxy` every connection goes by way of it. Also an async context manager.
    """

    def __init__(
        self,
        base: str,
        ssl: tls.SSLContext | None = None,
        headers: Iterable[tuple[str, str]] = (),
        *,
        server_hostname: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        proxy: Proxy | None = None,
    ) -> None:
        url = urlsplit(base)
        self.base = base
        self.headers = tuple(headers)
        self._proxy = proxy
        self._timeout = timeout
        self._ssl: tls.SSLContext | None = None
        self._server_hostname: str | None = None
        self._prefix = ""
        if url.scheme == "unix":
            self._path, self._host, self._port, self._authority = url.path, "", 0, "localhost"
        elif url.scheme in DEFAULT_PORTS and url.hostname:
            self._path, self._host, self._port = "", url.hostname, url.port or DEFAULT_PORTS[url.scheme]
            self._authority = url.netloc.rpartition("@")[2]
            self._prefix = url.path.rstrip("/")
            if url.scheme == "https":
                self._ssl = ssl or tls.create_default_context()
                self._server_hostname = server_hostname or url.hostname
        else:
            raise InvalidInput(f"{base!r} is not a unix:///path, http://host or https://host address")
        if proxy is not None and url.scheme == "http":
            self._prefix = f"http://{self._authority}{self._prefix}"
            if proxy.authorization:
                self.headers = (*self.headers, ("Proxy-Authorization", proxy.authorization))
        self._idle: list[ClientConnection] = []
        self._busy: set[ClientConnection] = set()

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
        timeout: float | None = None,  # noqa: ASYNC109  # the contract says what is raised
    ) -> ClientResponse:
        """Send a request and wait for its response's head. The body is then read from the response.

        `timeout` seconds for connecting, sending and waiting together; None takes the client's default, 0 waits for ever.
        Raises Unavailable naming the server when it cannot be reached, does not answer in time, or breaks off.
        """
        may_repeat = method in IDEMPOTENT and isinstance(body, bytes)
        limit = self._timeout if timeout is None else timeout or None
        try:
            async with asyncio.timeout(limit):
                while True:
                    connection, reused = await self._checkout()
                    try:
                        return await connection.exchange(method, self._prefix + target, self._fields(headers), body)
                    except Disconnected as error:
                        if reused and may_repeat and not connection.answered:
                            continue  # stale connections leave the pool one by one; a new one fails for good
                        raise Unavailable(f"{self.base} closed the connection during {method} {target}: {error}") from error
        except TimeoutError:
            raise Unavailable(f"{self.base} did not answer {method} {target} within {limit:g} s") from None

    async def upgrade(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> tuple[ClientResponse, Stream | None]:
        """As request, on a connection of its own. `headers` carry `Upgrade`; `Connection: Upgrade` is added unless given.

        The stream, the caller's to close, is None when the server answered otherwise than 101; the response then has a body to read.
        """
        pairs = tuple(headers)
        if not any(name.lower() == "connection" for name, _ in pairs):
            pairs = (*pairs, ("Connection", "Upgrade"))
        limit = self._timeout if timeout is None else timeout or None
        try:
            async with asyncio.timeout(limit):
                connection = await self._connect()
                try:
                    response = await connection.exchange(method, self._prefix + target, self._fields(pairs), body)
                except Disconnected as error:
                    raise Unavailable(f"{self.base} closed the connection during {method} {target}: {error}") from error
        except TimeoutError:
            raise Unavailable(f"{self.base} did not answer {method} {target} within {limit:g} s") from None
        stream = connection.take_stream()
        if stream is not None:
            self._busy.discard(connection)
        return response, stream

    async def close(self) -> None:
        """Close every connection, those with a response still being read included; upgraded streams belong to their takers."""
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        for connection in connections:
            if not connection.lost:
                connection.transport.abort()
        for connection in connections:
            await connection.wait_lost()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _fields(self, headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        pairs = (*self.headers, *headers)
        if any(name.lower() == "host" for name, _ in pairs):
            return pairs
        return (("Host", self._authority), *pairs)

    async def _checkout(self) -> tuple[ClientConnection, bool]:
        """A connection, and whether it was used before."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.idle_since < IDLE_MAX_S:
                self._busy.add(connection)
                return connection, True
            if not connection.lost:
                connection.transport.close()
        return await self._connect(), False

    async def _connect(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        try:
            if self._path:
                _, connection = await loop.create_unix_connection(self._new, self._path)
            elif self._proxy is not None and self._ssl is None:
                _, connection = await loop.create_connection(self._new, self._proxy.host, self._proxy.port)
            elif self._proxy is not None:
                sock = await tunnel(self._proxy, self._host, self._port)
                _, connection = await loop.create_connection(self._new, sock=sock, ssl=self._ssl, server_hostname=self._server_hostname)
            else:
                _, connection = await loop.create_connection(
                    self._new, self._host, self._port, ssl=self._ssl, server_hostname=self._server_hostname
                )
        except tls.SSLCertVerificationError as error:
            raise Unavailable(f"cannot trust {self.base}: {error.verify_message}") from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            way = f" by way of the proxy {self._proxy}" if self._proxy else ""
            raise Unavailable(f"cannot connect to {self.base}{way}: {reason}") from error
        self._busy.add(connection)
        return connection

    def _new(self) -> ClientConnection:
        return ClientConnection(self._released)

    def _released(self, connection: ClientConnection) -> None:
        """An exchange has ended, or the connection has."""
        self._busy.discard(connection)
        if connection.lost:
            if connection in self._idle:
                self._idle.remove(connection)
        elif connection.reusable and len(self._idle) < IDLE_MAX:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.transport.close()
