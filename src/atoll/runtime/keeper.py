"""The keeper: one small process for each instance that forks, feeds, logs and reaps every container.

It imports little and runs on `python -I -S` from a sealed copy of the interpreter (see `spawn`). It is nobody's child and in no cgroup of
the engine's, so that neither the engine's death nor a service manager's cleaning up reaches it. One thread, one epoll loop; a request is
handled at once or answered later by what it waits for. What was left by a keeper that died (its containers' output had no reader any
more) is ended when the next one starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
from typing import Any

from atoll.errors import SystemFailure
from atoll.kernel import capabilities, prctl, title
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import protocol
from atoll.runtime.loop import READ, WRITE, Loop
from atoll.runtime.operations import Operations

QUEUE_MAX = 100_000  # messages owed to one client that does not read; then it is cut off


class Connection:
    """One client: requests in, replies and events out, in order."""

    def __init__(self, keeper: Keeper, sock: socket.socket) -> None:
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


class Keeper:
    def __init__(self, home: str, instance_id: str, listener: socket.socket) -> None:
        self.loop = Loop({signal.SIGCHLD: self._reap, signal.SIGTERM: self._terminate})
        self.connections: set[Connection] = set()
        self._layout = Layout.discover()
        self._instance_id = instance_id
        cache = os.path.join(home, "cache", "seccomp")
        for directory in (os.path.dirname(cache), cache):
            _make_private(directory)  # here and not by the first child, which works without a umask
        self._operations = Operations(self.loop, self._layout, instance_id, cache, self._broadcast)
        self._listener = listener
        listener.setblocking(False)
        self.loop.add(listener.fileno(), READ, self._accept)

    def run(self) -> None:
        self._sweep()
        capabilities.available()  # read once, for all children
        gc.collect()
        gc.freeze()  # children share these pages for longer when the collector leaves them alone
        self.loop.run()

    def handle(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """One request. Whatever goes wrong in it is its own answer: the keeper goes on."""
        number = message.get("id")

        def reply(ok: dict[str, Any] | None, error: dict[str, Any] | None) -> None:
            connection.send({"id": number, "ok": ok} if error is None else {"id": number, "error": error})

        if message.get("op") == "shutdown":
            protocol.close_all(fds)
            if self._operations.containers:
                reply(None, {"kind": "conflict", "message": f"the keeper has {len(self._operations.containers)} containers"})
            else:
                reply({}, None)
                self.loop.stop()
            return
        self._operations.handle(message, fds, reply)

    def close(self) -> None:
        """Leave nothing of the instance's own cgroups, then hang up: to clients that is the sign that it is done."""
        self._listener.close()
        _leave_group(self._layout)
        for path in (f"/atoll-{self._instance_id}/keeper", f"/atoll-{self._instance_id}"):
            try:
                Cgroup(self._layout, path).remove()
            except (SystemFailure, OSError) as error:
                print(f"keeper: {error}", file=sys.stderr)  # noqa: T201 - stderr is the keeper's log file
        for connection in list(self.connections):
            connection.close()

    def _accept(self, _: int) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            self.connections.add(Connection(self, sock))

    def _broadcast(self, event: dict[str, Any]) -> None:
        for connection in list(self.connections):
            connection.send(event)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._operations.on_death(pid, status)

    def _terminate(self) -> None:
        """The machine goes down: end every container, keep each exit, then end."""
        self._operations.kill_all(on_done=self.loop.stop)

    def _sweep(self) -> None:
        """Kill what a dead predecessor left and remove its groups."""
        seen: set[str] = set()
        for point in (*self._layout.points, self._layout.unified):
            top = f"{point}/atoll-{self._instance_id}"
            if point and os.path.isdir(top):
                seen.update(entry.name for entry in os.scandir(top) if entry.is_dir() and entry.name != "keeper")
        for name in seen:
            group = Cgroup(self._layout, f"/atoll-{self._instance_id}/{name}")
            group.kill()
            try:
                group.remove()
            except SystemFailure as error:
                print(f"keeper: {error}", file=sys.stderr)  # noqa: T201


def _enter_group(layout: Layout, instance_id: str) -> None:
    """Out of the engine's group in the hierarchies by which service managers find whom to kill; limits elsewhere stay as they are."""
    for point in (*layout.named, layout.unified):
        if point:
            directory = f"{point}/atoll-{instance_id}/keeper"
            try:
                os.makedirs(directory, exist_ok=True)
                _move(directory)
            except OSError as error:
                print(f"keeper: {directory}: {error.strerror}", file=sys.stderr)  # noqa: T201


def _leave_group(layout: Layout) -> None:
    for point in (*layout.named, layout.unified):
        if point:
            _move(point)


def _move(directory: str) -> None:
    with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write("0")


def main(home: str, instance_id: str, ready: int) -> None:
    """Run as `python -I -S -c ...`, see `spawn`. `ready` is written to when the socket listens."""
    if os.fork():
        os._exit(0)  # so that the keeper is nobody's child
    for fd in range(3, ready):
        _close(fd)
    os.closerange(ready + 1, 256)
    lock = os.open(os.path.join(home, "run", "keeper.pid"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    prctl.set_name("atoll-keeper")
    title.arguments()  # for the children that show another title
    prctl.set_dumpable(dumpable=False)
    prctl.set_child_subreaper()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # four for each container; containers get as many unless told otherwise
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _enter_group(Layout.discover(), instance_id)
    path = os.path.join(home, "run", "keeper.sock")
    _unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.umask(0o177)
    listener.bind(path)
    os.umask(0o022)
    listener.listen(64)
    keeper = Keeper(home, instance_id, listener)
    os.write(ready, b"1")
    os.close(ready)
    keeper.run()
    _unlink(path)
    _unlink(os.path.join(home, "run", "keeper.pid"))
    keeper.close()


def _make_private(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    os.chmod(directory, 0o700)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return
