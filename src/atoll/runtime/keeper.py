"""The keeper: one small process for each instance that forks, feeds, logs and reaps every container.

It imports little and runs on `python -I -S` from a sealed copy of the interpreter (see `spawn`). It is in no cgroup of the engine's, so
that neither the engine's death nor a service manager's cleaning up reaches it. One thread, one epoll loop; a request is handled at once or
answered later by what it waits for. Above it stands its holder: a keeper that dies is followed by one that takes its containers over.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import signal
from typing import Any

from atoll.errors import AtollError, Conflict
from atoll.kernel import capabilities, memory, prctl, title
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import launch, protocol, renewal
from atoll.runtime.adoption import adopt, close_others
from atoll.runtime.complain import complain
from atoll.runtime.connection import Connection
from atoll.runtime.distant import DistantGroups
from atoll.runtime.foundation import Foundation, inherit, lay, leave_group, remove_group
from atoll.runtime.holder import DEATH, ENDED, RENEW, Holder, wait_status
from atoll.runtime.journal import Journal
from atoll.runtime.life import Life
from atoll.runtime.loop import READ, Loop
from atoll.runtime.operations import Operations, describe
from atoll.runtime.records import Record, found

FAILED = 70  # exit code, EX_SOFTWARE
SETTLED_S = 1.0  # what only the start needed is given back then
PID_WIDTH = 10


class Outcome(enum.Enum):
    STOPPED = enum.auto()
    RENEWED = enum.auto()  # newer code is to take over
    UNHELD = enum.auto()  # the holder has died


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
        self._life = Life(self.loop, self._broadcast, DistantGroups(home, f"/atoll-{instance_id}"))
        self._operations = Operations(self.loop, self._layout, instance_id, launch.Launcher(self.loop, cache), journal, self._life)
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
        self.loop.later(SETTLED_S, self._settle)
        self.loop.run()
        return self._outcome

    def handle(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """One request. Whatever goes wrong in it is its own answer: the keeper goes on."""
        number = message.get("id")

        def reply(ok: dict[str, Any] | None, error: dict[str, Any] | None) -> None:
            if number is not None:  # else it was a hint
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

    def _settle(self) -> None:
        with contextlib.suppress(OSError):
            memory.give_back()

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.loop.stop()

    def close(self) -> None:
        """Leave nothing of the instance's own cgroups, then hang up: to clients that is the sign that it is done."""
        self._listener.close()
        leave_group(self._layout, self._holder)
        own = [Cgroup(self._layout, f"/atoll-{self._instance_id}{name}") for name in ("/keeper", "")]
        for group in (*self._operations.spares.end_all(), *own):
            remove_group(group)
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


def main(home: str, instance_id: str, build: str, ready: int, inherited: str = "") -> None:
    """Run as `python -I -S -c ...`, see `spawn`. `ready` is written to when the socket listens.

    `inherited` are the descriptors of the foundation where a holder has become one of newer code; else all is made here.
    """
    foundation = inherit(inherited) if inherited else lay(home, instance_id, ready)
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


def _make_private(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    os.chmod(directory, 0o700)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
