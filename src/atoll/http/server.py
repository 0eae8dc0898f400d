"""The server: listening sockets, the set of connections, and the end of both."""

from __future__ import annotations

import os
import ssl as tls
from collections.abc import Awaitable, Callable

from atoll.http.limits import Limits
from atoll.http.request import Request
from atoll.http.response import Response

Handler = Callable[[Request], Awaitable[Response | None]]
ErrorHandler = Callable[[Request, Exception], Response]


class Server:
    """`on_error` turns what a handler raises into a response: each face maps atoll.errors to its own bodies there."""

    def __init__(self, handler: Handler, limits: Limits | None = None, on_error: ErrorHandler | None = None, name: str = "http") -> None:
        raise NotImplementedError

    async def start_unix(self, path: str | os.PathLike[str], mode: int = 0o600) -> None:
        """Listen on a unix socket, replacing a stale one. InUse where a live server answers there."""
        raise NotImplementedError

    async def start_tcp(self, host: str, port: int, ssl: tls.SSLContext | None = None) -> int:
        """Listen on TCP; port 0 takes a free one. Returns the port. InUse where it is taken."""
        raise NotImplementedError

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, let running requests end for `grace` seconds, then cancel them."""
        raise NotImplementedError
