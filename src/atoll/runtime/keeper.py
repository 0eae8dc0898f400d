"""The keeper: one small process for each instance that forks, feeds, logs and reaps every container.

It imports little and runs on `python -I -S` from a sealed copy of the interpreter (see `spawn`). It is in no cgroup of the engine's, so
that neither the engine's death nor a service manager's cleaning up reaches it. One thread, one epoll loop; a request is handled at once or
answered later by what it waits for. Above it stands its holder: a keeper that dies is followed by one that takes its containers over.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import gc
import os
import resource
import signal
import socket
import time
from typing import Any, NamedTuple

from atoll.errors import AtollError, Conflict, SystemFailure
from atoll.kernel import capabilities, prctl, title
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import launch, protocol, renewal
from atoll.runtime.adoption import adopt, close_others
from atoll.runtime.complain import complain
from atoll.runtime.holder import DEATH, ENDED, RENEW, Holder, wait_status
from atoll.runtime.journal import NAME as JOURNAL
from atoll.runtime.journal import Journal
from atoll.runtime.life import Life
from atoll.runtime.loop import READ, WRITE, Loop
from atoll.runtime.operations import Operations, describe
from atoll.runtime.records import Record, found, open_descriptors

QUEUE_MAX = 100_000  # messages owed to one client that does not read; then it is cut off
FAILED = 70  # exit code, EX_SOFTWARE
PID_WIDTH = 10
DEATHS_SIZE = 1 << 20  # bytes of the pipe that exits wait in: 131,072 of them
REMOVE_TRIES, REMOVE_STEP_S = 500, 0.002


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


class Outcome(enum.Enum):
    STOPPED = enum.auto()
    RENEWED = enum.auto()  # newer code is to take over
    UNHELD = enum.auto()  # the holder has died


class Foundation(NamedTuple):
    """What is open before the first keeper and stays open under all of them."""

    lock: int
    listener: socket.socket
    deaths: int  # the reading end of the holder's pipe
    deaths_told: int
    journal: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self.lock, self.listener.fileno(), self.deaths, self.deaths_told, self.journal


class Keeper:
    def __init__(self, home: str, instance_id: str, build: str, foundation: Foundation, records: list[Record], holder: int) -> None:
        """`records` tell of the processes to take over; `holder` is the process above."""
        self.loop = Loop({signal.SIGCHLD: self._reap, signal.SIGTERM: self._terminate})
        self.connections: set[Connection] = set()
        self._layout = Layout.discover()
        self._instance_id = instance_id
        self._build = build
        self._holder = holder
        self._outcome = Outcome.STOPPED
        cache = os.path.join(home, "cache", "seccomp")
        for directory in (os.path.dirname(cache), cache):
            _make_private(directory)  # here and not by the first child, which works without a umask
        journal = Journal(foundation.journal)
        self._life = Life(self.loop, self._broadcast)
        self._operations = Operations(self._layout, instance_id, launch.Launcher(self.loop, cache), journal, self._life)
        adopt(records, self.loop, self._life, journal, self._operations.make, holder)
        self._listener = foundation.listener
        self._deaths = foundation.deaths
        self.loop.add(self._deaths, READ, self._hear_of_deaths)
        self.loop.add(self._listener.fileno(), READ, self._accept)

    def run(self) -> Outcome:
        try:
            above = os.pidfd_open(self._holder)
        except ProcessLookupError:
            return Outcome.UNHELD
        self.loop.add(above, READ, lambda _: self._end(Outcome.UNHELD))
        self._life.sweep(self._layout, f"/atoll-{self._instance_id}", {"keeper"})
        capabilities.available()  # read once, for all children
        self.loop.run()
        return self._outcome

    def handle(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """One request. Whatever goes wrong in it is its own answer: the keeper goes on."""
        number = message.get("id")

        def reply(ok: dict[str, Any] | None, error: dict[str, Any] | None) -> None:
            connection.send({"id": number, "ok": ok} if error is None else {"id": number, "error": error})

        operation = {"hello": self._hello, "shutdown": self._shut_down, "renew": self._renew}.get(str(message.get("op")))
        if operation is None:
            self._operations.handle(message, fds, reply)
            return
        try:
            reply(operation(message, fds), None)
        except (AtollError, KeyError, OSError) as error:
            reply(None, describe(error))
        finally:
            protocol.close_all(fds)

    def _hello(self, _: dict[str, Any], __: list[int]) -> dict[str, Any]:
        return {"version": protocol.VERSION, "build": self._build, "pid": os.getpid(), "cgroups": self._layout.mode}

    def _shut_down(self, _: dict[str, Any], __: list[int]) -> dict[str, Any]:
        if self._life.containers:
            raise Conflict(f"the keeper has {len(self._life.containers)} containers")
        self._end(Outcome.STOPPED)
        return {}

    def _renew(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        renewal.leave_order(message["command"], message["environment"], fds.pop())
        self._end(Outcome.RENEWED)
        return {}

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.loop.stop()

    def close(self) -> None:
        """Leave nothing of the instance's own cgroups, then hang up: to clients that is the sign that it is done."""
        self._listener.close()
        _leave_group(self._layout, self._holder)
        for path in (f"/atoll-{self._instance_id}/keeper", f"/atoll-{self._instance_id}"):
            _remove_group(Cgroup(self._layout, path))
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
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._life.note_death(ended.si_pid, wait_status(ended))
            pid, status = os.waitpid(ended.si_pid, 0)
            self._life.on_death(pid, status)

    def _hear_of_deaths(self, _: int) -> None:
        """Of processes that were children of another keeper."""
        told = os.read(self._deaths, DEATH.size * 1000)
        for pid, status in DEATH.iter_unpack(told):
            self._life.note_death(pid, status)
            self._life.on_death(pid, status)

    def _terminate(self) -> None:
        """The machine goes down: end every container, keep each exit, then end."""
        self._life.kill_all(on_done=self.loop.stop)


def _enter_group(layout: Layout, instance_id: str) -> None:
    """Out of the engine's group in the hierarchies by which service managers find whom to kill; limits elsewhere stay as they are."""
    for point in (*layout.named, layout.unified):
        if point:
            directory = f"{point}/atoll-{instance_id}/keeper"
            try:
                os.makedirs(directory, exist_ok=True)
                _move(directory)
            except OSError as error:
                complain(f"{directory}: {error.strerror}")


def _leave_group(layout: Layout, holder: int) -> None:
    for point in (*layout.named, layout.unified):
        if point:
            _move(point)
            with contextlib.suppress(ProcessLookupError):
                _move(point, holder)


def _move(directory: str, pid: int = 0) -> None:
    with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write(str(pid))


def _remove_group(group: Cgroup) -> None:
    """At the end there is time to wait."""
    try:
        for _ in range(REMOVE_TRIES):
            if group.remove():
                return
            time.sleep(REMOVE_STEP_S)
        complain(f"cgroup {group.path} cannot be removed: it is still in use")
    except (SystemFailure, OSError) as error:
        complain(str(error))


def main(home: str, instance_id: str, build: str, ready: int, inherited: str = "") -> None:
    """Run as `python -I -S -c ...`, see `spawn`. `ready` is written to when the socket listens.

    `inherited` are the descriptors of the foundation where a holder has become one of newer code; else all is made here.
    """
    foundation = _inherit(inherited) if inherited else _found(home, instance_id, ready)
    prctl.set_dumpable(dumpable=False)
    title.arguments()  # for the children that show another title
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    holder = Holder(home, foundation.deaths_told, lambda: renewal.follow_order(foundation.descriptors))
    gc.collect()
    gc.freeze()  # keepers and containers' children share these pages for longer when the collector leaves them alone
    past = []  # keepers whose memory holders were made of: what their objects have open must not be closed by their going
    while True:
        holder.hold()  # returns as a keeper
        try:
            prctl.set_name("atoll-keeper")
            title.write(["atoll-keeper", home])
            prctl.set_child_subreaper()
            os.pwrite(foundation.lock, f"{os.getpid():<{PID_WIDTH}}\n".encode(), 0)  # one write of one length: never half another's
            records = found()
            is_first = not inherited and holder.keepers == 1
            if not is_first:
                close_others(foundation.descriptors, records)
            keeper = Keeper(home, instance_id, build, foundation, records, holder.pid)
            if is_first:
                os.write(ready, b"1")
                os.close(ready)
            outcome = keeper.run()
            if outcome is Outcome.STOPPED:
                _unlink(os.path.join(home, "run", "keeper.sock"))
                _unlink(os.path.join(home, "run", "keeper.pid"))
                keeper.close()
                os._exit(ENDED)
        except BaseException:
            import traceback  # half a megabyte that most keepers never need

            complain(traceback.format_exc())
            os._exit(FAILED)
        if outcome is Outcome.RENEWED:
            os._exit(RENEW)
        past.append(keeper)


def _found(home: str, instance_id: str, ready: int) -> Foundation:
    if os.fork():
        os._exit(0)  # so that nobody is our parent
    for fd in range(3, ready):
        _close(fd)
    os.closerange(ready + 1, 256)
    lock = os.open(os.path.join(home, "run", "keeper.pid"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # six for each container; containers get as many unless told otherwise
    _enter_group(Layout.discover(), instance_id)
    path = os.path.join(home, "run", "keeper.sock")
    _unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.umask(0o177)
    listener.bind(path)
    os.umask(0o022)
    listener.listen(64)
    listener.setblocking(False)
    deaths, deaths_told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(deaths_told, fcntl.F_SETPIPE_SZ, DEATHS_SIZE)
    return Foundation(lock, listener, deaths, deaths_told, os.memfd_create(JOURNAL, os.MFD_CLOEXEC))


def _inherit(descriptors: str) -> Foundation:
    lock, listener, deaths, deaths_told, journal = (int(word) for word in descriptors.split(","))
    for fd, _ in open_descriptors():
        if fd > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
    sock = socket.socket(fileno=listener)
    sock.setblocking(False)
    return Foundation(lock, sock, deaths, deaths_told, journal)


def _make_private(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    os.chmod(directory, 0o700)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
