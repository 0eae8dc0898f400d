"""The server: its listening sockets, the set of its connections, and the end of both.

A unix socket is bound with its mode already set (fchmod before bind, which Linux applies to the new inode), so there is no moment in which
others may connect. A stale socket file is told from a live one by connecting to it. Deadlines of all connections are looked at by one
timer, which runs only while there are connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl as tls
import stat
import time
from typing import Self

from atoll.errors import InUse, InvalidInput, SystemFailure
from atoll.http.exchange import ErrorHandler, Handler, default_on_error
from atoll.http.limits import Limits
from atoll.http.protocol import HttpConnection

__all__ = ["ErrorHandler", "Handler", "Server"]

BACKLOG = 1024
SWEEP_S = 1.0  # how late a deadline may be noticed; shorter where the limits themselves are shorter
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Server:
    """Serves a handler on any number of sockets.

    `on_error` turns what a handler raises into a response: each face maps atoll.errors to its own bodies there. Without it the router's
    404 and 405 are answered as such, all else is a logged 500.
    """

    def __init__(self, handler: Handler, limits: Limits | None = None, on_error: ErrorHandler | None = None) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.on_error = on_error or default_on_error
        self.connections: set[HttpConnection] = set()
        self.closing = False
        self._listeners: list[asyncio.Server] = []
        self._socket_files: list[tuple[str, int, int]] = []  # path, device, inode
        self._sweeper: asyncio.TimerHandle | None = None
        self._date = b""
        self._date_second = 0
        shortest = min(self.limits.head_timeout, self.limits.idle_timeout, self.limits.linger)
        self._sweep_interval = min(SWEEP_S, max(0.01, shortest / 2))

    async def start_unix(self, path: str | os.PathLike[str], mode: int = 0o600) -> None:
        """Listen on a unix socket, replacing a stale one.

        InUse where a live server answers there, InvalidInput where the path is another kind of file.
        """
        name = os.fspath(path)
        await _remove_stale(name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(sock.fileno(), mode)
            sock.bind(name)
            os.chmod(name, mode)  # the umask has taken bits away at bind, never added any
            found = os.lstat(name)
            loop = asyncio.get_running_loop()
            listener = await loop.create_unix_server(lambda: HttpConnection(self, loop), sock=sock, backlog=BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise InUse(f"{name} was taken by another server at this moment") from error
            if error.errno is None:  # Python's own check of the length
                raise InvalidInput(f"cannot listen on {name}: {error}") from error
            raise SystemFailure(f"listen on {name}", error.errno) from error
        self._listeners.append(listener)
        self._socket_files.append((name, found.st_dev, found.st_ino))

    async def start_tcp(self, host: str, port: int, ssl: tls.SSLContext | None = None) -> int:
        """Listen on TCP, with TLS where a context is given; port 0 takes a free one. Returns the port. InUse where it is taken."""
        loop = asyncio.get_running_loop()
        handshake = self.limits.head_timeout if ssl else None
        try:
            listener = await loop.create_server(
                lambda: HttpConnection(self, loop), host, port, ssl=ssl, backlog=BACKLOG, ssl_handshake_timeout=handshake
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InUse(f"{host}:{port} is in use by another process") from error
            raise SystemFailure(f"listen on {host}:{port}", error.errno or errno.EINVAL) from error
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that somebody else has accepted; it is the server's from here on."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        await loop.connect_accepted_socket(lambda: HttpConnection(self, loop), sock)

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening and close idle connections; let running requests end for `grace` seconds, then cancel them and cut the rest."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        self._remove_socket_files()
        for connection in list(self.connections):
            connection.close_if_idle()
        tasks = {connection.task for connection in self.connections if connection.task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace + 1.0)
        remaining = [connection for connection in self.connections if not connection.lost]
        for connection in remaining:
            connection.transport.abort()
        for connection in remaining:
            await connection.wait_lost()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._listeners.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def date(self) -> bytes:
        """The Date field (RFC 9110, 5.6.7), formatted once a second; by hand, since strftime follows the locale."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            year, month, day, hour, minute, sec, weekday, *_ = time.gmtime(second)
            self._date = (
                f"Date: {WEEKDAYS[weekday]}, {day:02d} {MONTHS[month - 1]} {year:04d} {hour:02d}:{minute:02d}:{sec:02d} GMT\r\n".encode()
            )
        return self._date

    def watch_deadlines(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_interval, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        for connection in list(self.connections):
            if connection.deadline and connection.deadline <= now:
                connection.expire()
        if self.connections:
            self.watch_deadlines()

    def _remove_socket_files(self) -> None:
        """Only those that are still ours: a newer server may have taken the path."""
        for name, device, inode in self._socket_files:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(name)
                if (found.st_dev, found.st_ino) == (device, inode):
                    os.unlink(name)
        self._socket_files.clear()


async def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidInput(f"{path} exists and is not a socket; remove it or choose another path")
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except ConnectionRefusedError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise SystemFailure(f"look for a live server on {path}", error.errno or errno.EINVAL) from error
    else:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        raise InUse(f"another server is listening on {path}")
