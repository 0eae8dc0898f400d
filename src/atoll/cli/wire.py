"""The engine's socket as the CLI uses it: one request at a time over a raw unix socket, and hijacked streams.

Not http.client: its import (email, ssl) takes longer than a whole `atoll ps`. The dialect is small: HTTP/1.1 with Content-Length, chunked
or read-to-end bodies, and 101 upgrades (Docker Engine API, "attach").
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket  # what lies beneath `socket`, without its selectors and enums

from atoll.cli.quickjson import dumps, loads
from atoll.home import ENGINE_SOCKET, home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

MAX_HEAD = 1 << 20  # bytes of response headers we are willing to hold
READ = 1 << 18
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class EngineError(Exception):
    """The engine answered with an error: `status` and its message; `exit_status` is what the command makes of it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.exit_status = 1


class EngineUnreachable(Exception):
    """No engine answers at the address, and none could be started."""


def quote(text: str) -> str:
    """Percent-encode one path segment or query value (urllib.parse costs 5 ms to import)."""
    return "".join(chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def target(path: str, query: dict[str, Any] | None = None) -> str:
    """PATH with a query string; None values are left out, booleans are 1 or 0, lists repeat, dicts are JSON (Docker's filters)."""
    pairs = []
    for name, value in (query or {}).items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, bool):
                item = "1" if item else "0"  # noqa: PLW2901  the wire's own spelling
            elif isinstance(item, dict):
                item = dumps(item)  # noqa: PLW2901
            pairs.append(f"{name}={quote(str(item))}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


class Reply:
    """A response whose body is read as it comes."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._buffer = b""
        head = self._head()
        lines = head.split("\r\n")
        self.status = int(lines[0].split(" ", 2)[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _head(self) -> str:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0:
                head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
                if not head.startswith(b"HTTP/1.1 100"):
                    return head.decode("latin-1")
                continue
            data = self._sock.recv(READ)
            if not data or len(self._buffer) > MAX_HEAD:
                raise EngineError(502, "the engine closed the connection before it answered: see `atoll engine logs`")
            self._buffer += data

    def _more(self) -> bytes:
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return self._sock.recv(READ)

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece, as it arrives."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left > 0:
                data = self._more()
                if not data:
                    raise EngineError(502, "the engine closed the connection in the middle of its answer: see `atoll engine logs`")
                yield data[:left]
                left -= len(data)
        elif self.status not in (204, 304):
            while data := self._more():
                yield data

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().split(b";", 1)[0], 16)
            if size == 0:
                self._line()
                return
            while size > 0:
                data = self._more()
                if not data:
                    raise EngineError(502, "the engine closed the connection in the middle of its answer: see `atoll engine logs`")
                yield data[:size]
                if len(data) > size:
                    self._buffer = data[size:] + self._buffer
                size -= min(len(data), size)
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            data = self._sock.recv(READ)
            if not data:
                raise EngineError(502, "the engine closed the connection in the middle of its answer: see `atoll engine logs`")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        return loads(self.read() or b"null")

    def lines(self) -> Iterator[Any]:
        """JSON values, one a line, as they arrive."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                if line.strip():
                    yield loads(line)
        if rest.strip():
            yield loads(rest)

    def stream(self) -> tuple[socket, bytes]:
        """After an upgrade: the socket, and what of the stream has been read already."""
        data, self._buffer = self._buffer, b""
        return self._sock, data

    def close(self) -> None:
        self._sock.close()


class Address:
    """Where an engine answers: a unix socket's `path`, a `host` and `port`, or a machine to reach by ssh.

    `tls` has the fields of remote.Tls; None for a connection in the clear, as only other engines than ours offer it.
    """

    __slots__ = ("host", "path", "port", "ssh", "tls")

    def __init__(self, path: str = "", host: str = "", port: int = 0, tls: dict[str, Any] | None = None, ssh: str = "") -> None:
        self.path = path
        self.host = host
        self.port = port
        self.tls = tls
        self.ssh = ssh

    @classmethod
    def parse(cls, text: str, files: dict[str, str] | None = None, *, verify: bool = True) -> Address:
        """From unix:///path, tcp://host:port or ssh://user@host. FILES of PEM make TLS of tcp. Raises EngineUnreachable."""
        kind, _, rest = text.partition("://")
        if kind == "unix" and rest.startswith("/"):
            return cls(path=rest)
        if kind == "ssh" and rest and not rest.startswith("-"):
            return cls(ssh=rest)
        host, _, port = rest.partition("/")[0].rpartition(":")
        if kind == "tcp" and host and port.isdigit():
            return cls(host=host.strip("[]"), port=int(port), tls=None if files is None else {**files, "verify": verify})
        raise EngineUnreachable(f"unable to parse docker host `{text}`: write unix:///path, tcp://host:port or ssh://user@host")

    def __str__(self) -> str:
        if self.ssh:
            return f"ssh://{self.ssh}"
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"


class Engine:
    """The engine at ADDRESS; by default this instance's own, started when it is not running."""

    def __init__(self, address: Address | None = None) -> None:
        own = os.path.join(home_directory(os.environ), ENGINE_SOCKET)
        self.address = address or Address(path=own)
        self.own = self.address.path == own
        self.path = self.address.path

    def connect(self) -> socket:
        if not self.path:
            return self._connect_elsewhere()
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            sock.connect(self.path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not self.own:
                sock.close()
                raise EngineUnreachable(f"Cannot connect to the engine at unix://{self.path}. Is it running?") from error
            from atoll.cli.start import start_engine

            start_engine()
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            raise EngineUnreachable(
                f"permission denied or no access to the engine socket at unix://{self.path}: {error.strerror}"
            ) from error
        return sock

    def _connect_elsewhere(self) -> socket:
        from atoll.cli.remote import Tls, connect, connect_ssh

        address = self.address
        try:
            if address.ssh:
                return connect_ssh(address.ssh)
            return connect(address.host, address.port, None if address.tls is None else Tls(**address.tls))
        except OSError as error:
            raise EngineUnreachable(f"Cannot connect to the engine at {address}: {error}") from error

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        *,
        body: Any = None,
        data: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        upgrade: bool = False,
    ) -> Reply:
        """Send one request, return its reply; raises EngineError for statuses of 400 and over.

        `body` goes as JSON; `data` as bytes, or chunk by chunk when it is an iterable. 304 is no error.
        """
        host = self.address.host or "atoll"
        head = [f"{method} {target(path, query)} HTTP/1.1", f"Host: {host}", "User-Agent: atoll"]
        if upgrade:
            head += ["Connection: Upgrade", "Upgrade: tcp"]
        else:
            head.append("Connection: close")
        payload: bytes | None = None
        if body is not None:
            payload = dumps(body).encode()
            head.append("Content-Type: application/json")
        elif isinstance(data, bytes):
            payload = data
        if payload is not None or (data is None and method in ("POST", "PUT")):
            head.append(f"Content-Length: {len(payload or b'')}")
        elif data is not None:
            head.append("Transfer-Encoding: chunked")
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        sock = self.connect()
        reply = None
        try:
            sock.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + (payload or b""))
            if payload is None and data is not None and not isinstance(data, bytes):
                _send_chunks(sock, data)
            reply = Reply(sock)
            if reply.status >= 400:
                raise _error(reply)
        except BaseException:
            sock.close()
            raise
        return reply

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        reply = self.request("GET", path, query)
        try:
            return reply.json()
        finally:
            reply.close()

    def post(self, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        reply = self.request("POST", path, query, body=body)
        try:
            return reply.json()
        finally:
            reply.close()

    def delete(self, path: str, query: dict[str, Any] | None = None) -> Any:
        reply = self.request("DELETE", path, query)
        try:
            return reply.json()
        finally:
            reply.close()


def _send_chunks(sock: socket, data: Iterable[bytes]) -> None:
    try:
        for chunk in data:
            if chunk:
                sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        sock.sendall(b"0\r\n\r\n")
    except BrokenPipeError:
        pass  # the engine answered early, with an error: it is read next


def _error(reply: Reply) -> EngineError:
    text = reply.read()
    try:
        message = loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text.decode(errors="replace").strip() or f"HTTP {reply.status}"
    return EngineError(reply.status, str(message))
