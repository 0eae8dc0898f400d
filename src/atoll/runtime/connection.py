"""One client of the keeper: requests in, replies and events out, in order."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from atoll.runtime import protocol
from atoll.runtime.loop import READ, WRITE, Loop

QUEUE_MAX = 100_000  # messages owed to one client that does not read; then it is cut off


class Server(Protocol):
    """Whose client it is."""

    loop: Loop
    connections: set[Connection]

    def handle(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None: ...


class Connection:
    def __init__(self, keeper: Server, sock: socket.socket) -> None:
        self._keeper = keeper
        self._socket = sock
        self._queue: list[dict[str, Any]] = []
        sock.setblocking(False)
        keeper.loop.add(sock.fileno(), READ, self._ready)

    def send(self, message: dict[str, Any]) -> None:
        if self._socket.fileno() < 0:
            return
        if not self._queue and self._try(message):
            return
        self._queue.append(message)
        if len(self._queue) > QUEUE_MAX:
            self.close()
        elif len(self._queue) == 1:
            self._keeper.loop.change(self._socket.fileno(), READ | WRITE)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._keeper.loop.remove(self._socket.fileno())
            self._socket.close()
            self._queue.clear()
            self._keeper.connections.discard(self)

    def _try(self, message: dict[str, Any]) -> bool:
        try:
            protocol.send(self._socket, message)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def _ready(self, events: int) -> None:
        if events & WRITE:
            while self._queue and self._try(self._queue[0]):
                del self._queue[:1]
            if self._socket.fileno() >= 0 and not self._queue:
                self._keeper.loop.change(self._socket.fileno(), READ)
        if events & ~WRITE:
            self._receive()

    def _receive(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                received = protocol.receive(self._socket)
            except BlockingIOError:
                return
            except (OSError, protocol.ProtocolError):
                received = None
            if received is None:
                self.close()
                return
            self._keeper.handle(self, *received)
