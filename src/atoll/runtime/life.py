"""From clone to reaping: what a child says of its start, who hears its output, and what follows its end.

The order that clients rely on: the answer to a start comes before the event of its exit; an exit is kept before it is told.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from typing import Any

from atoll.errors import SystemFailure
from atoll.kernel import pidfd
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import protocol
from atoll.runtime.complain import complain
from atoll.runtime.container import Container, Process
from atoll.runtime.distant import DistantGroups
from atoll.runtime.exit_files import ExitFiles
from atoll.runtime.groups import Groups
from atoll.runtime.loop import READ, Loop
from atoll.runtime.records import NOTHING

UNKNOWN = 255 << 8 | 0x10000  # beyond what wait(2) gives; reads as exit code 255, which Docker shows of the lost
TOLD_S, STEP_S = 0.2, 0.01


class Life:
    """Every container and process of the keeper."""

    def __init__(self, loop: Loop, broadcast: Callable[[dict[str, Any]], None], distant: DistantGroups) -> None:
        self.containers: dict[str, Container] = {}
        self.groups = Groups(loop)
        self.distant = distant
        self.exit_files = ExitFiles(loop)
        self.helpers: dict[int, Callable[[], None]] = {}  # what follows the end of a child that is nobody's process
        self.broadcast = broadcast
        self._loop = loop
        self._by_pid: dict[int, Process] = {}
        self._unborn = 0  # those whose pid is not known yet
        self._strangers: dict[int, int] = {}  # deaths seen while some were unborn
        self._on_empty: Callable[[], None] | None = None

    def sweep(self, layout: Layout, top: str, kept: Collection[str]) -> None:
        """End what is in groups below `top` and belongs to no container: no keeper has got to write it down."""
        known = {container.cgroup.path.removeprefix(f"{top}/").partition("/")[0] for container in self.containers.values()}
        names: set[str] = set()
        for point in (*layout.points, layout.unified):
            if point and os.path.isdir(point + top):
                names.update(entry.name for entry in os.scandir(point + top) if entry.is_dir())
        for name in names.difference(known, kept):
            self.groups.end(Cgroup(layout, f"{top}/{name}"))
        for path in set(self.distant.listed()).difference(container.cgroup.path for container in self.containers.values()):
            self.groups.end(Cgroup(layout, path))

    def kill_all(self, on_done: Callable[[], None]) -> None:
        """End every container; `on_done` when the last has ended."""
        self._on_empty = on_done
        for container in self.containers.values():
            if container.state != "exited":
                self.groups.end(container.cgroup)
        self._check_empty()

    def take_up(self, process: Process) -> None:
        """Know the process by its pid, now or as soon as that is told."""
        if process.pid:
            self._by_pid[process.pid] = process
        else:
            self._unborn += 1

    def note_death(self, pid: int, status: int) -> None:
        """A child has ended and is about to be reaped."""
        process = self._by_pid.get(pid)
        if process is not None:
            process.note_end(status)

    def watch(self, process: Process) -> None:
        """One whose parent, and so the only one to be told of its end, is not of ours any more: the holder was killed."""
        self._loop.add(process.pidfd, READ, lambda _: self._end_unseen(process, time.monotonic() + TOLD_S))

    def _end_unseen(self, process: Process, deadline: float) -> None:
        if process.ending is not None or process.pidfd < 0:
            return
        self._loop.remove(process.pidfd)
        status = pidfd.wait_status(process.pidfd, process.pid)
        if status is None and time.monotonic() < deadline:  # not reaped yet, or told of already but not heard
            self._loop.later(STEP_S, lambda: self._end_unseen(process, deadline))
            return
        self.note_death(process.pid, UNKNOWN if status is None else status)
        self.on_death(process.pid, UNKNOWN if status is None else status)

    def on_death(self, pid: int, status: int) -> None:
        """A child was reaped. Unknown ones are orphans of containers, and the forerunners of execs."""
        helper = self.helpers.pop(pid, None)
        if helper is not None:
            helper()
            return
        process = self._by_pid.pop(pid, None)
        if process is None:
            if self._unborn:
                self._strangers[pid] = status
            return
        if process.status is not None:
            self._read_status(process)  # its last words, and the answer to the start, come first
        if process.status is not None and process.is_attended:
            process.early_status = status
            return
        if process.status is not None:
            self._end_start(process)
        if process.started:
            self._finish(process, status)

    def follow(self, process: Process, ends: dict[str, int]) -> None:
        """Attach whoever asked to be from the first byte on, then listen to the child."""
        assert process.status is not None
        self._loop.add(process.status.fileno(), READ, lambda _: self._read_status(process))
        self.follow_on(process, ends)

    def follow_on(self, process: Process, ends: dict[str, int]) -> None:
        """Attach, or remember who is to be attached. Takes the descriptors that it uses out of `ends`."""
        if ends and process.outputs:
            self.attach(process, ends)
        elif ends:
            process.waiting_ends = dict(ends)  # until there is a terminal
            ends.clear()

    def attach(self, process: Process, ends: dict[str, int]) -> None:
        """Takes the descriptors that it uses out of `ends`."""
        if "stdin" in ends and process.inputs is not None:
            process.inputs.attach(ends.pop("stdin"))
        for name in ("stdout", "stderr"):
            if name in ends and name in process.outputs:
                process.outputs[name].attach(ends.pop(name))

    def _read_status(self, process: Process) -> None:
        while process.status is not None:
            try:
                received = protocol.receive(process.status, keep=True)
            except BlockingIOError:
                return
            except (OSError, protocol.ProtocolError):
                received = None
            if received is None:
                self._end_start(process)
                return
            message, fds = received
            self._hear(process, message, fds)
            protocol.close_all(fds)
            if process.error is not None and not process.is_attended:
                self._end_start(process)  # there are no further words
                return
            protocol.drop(process.status)

    def _hear(self, process: Process, message: dict[str, Any], fds: list[int]) -> None:
        """One message of the child, which a keeper that has died since may have heard and kept, too."""
        if "pid" in message and not process.pid:
            self._born(process, int(message["pid"]))
        elif "terminal" in message and process.terminal < 0:
            process.take_terminal(self._loop, fds.pop())
            self.attach(process, process.waiting_ends)
            protocol.close_all(list(process.waiting_ends.values()))
            process.waiting_ends = {}
        elif "ready" in message:
            process.ready = True
            process.note("ready", 1)
        elif "error" in message:
            process.error = message["error"]

    def _born(self, process: Process, pid: int) -> None:
        """The pid of an exec is known only now; it may have ended meanwhile."""
        process.be(pid)
        self._unborn -= 1
        if pid in self._strangers:
            process.early_status = self._strangers.pop(pid)
        else:
            self._by_pid[pid] = process
        if not self._unborn:
            self._strangers.clear()

    def _end_start(self, process: Process) -> None:
        """The status socket has closed: the program runs, or the child has failed."""
        assert process.status is not None
        now = time.time_ns()
        has_started = process.error is None and process.ready
        process.note("started_ns", now if has_started else 0, NOTHING)
        self._loop.remove(process.status.fileno())
        process.status.close()
        process.status = None
        reply, process.reply = process.reply, None
        container = process.container
        if not process.pid:
            self._unborn -= 1
        if has_started:
            process.started = True
            if process.exec_id is None:
                container.started_ns = now
            if reply is not None:
                reply({"pid": process.pid}, None)
            if process.early_status is not None:
                self._finish(process, process.early_status)
            return
        error = process.error or {
            "kind": "start-failed",
            "message": "the container's init was killed before it could start the program: is its memory limit too low?",
        }
        process.close_streams()
        protocol.close_all(list(process.waiting_ends.values()))
        process.waiting_ends = {}
        process.forget()
        if process.exec_id is None:
            self.containers.pop(container.id, None)
            self.abandon(container)
            self._check_empty()
        else:
            container.execs.pop(process.exec_id, None)
        if reply is not None:
            reply(None, error)

    def abandon(self, container: Container) -> None:
        """A container that never was: nothing of it stays."""
        if container.log is not None:
            container.log.close()
        self.groups.end(container.cgroup)
        self.forget_group(container)

    def forget_group(self, container: Container) -> None:
        """Of a container that is known no more."""
        if self.distant.is_distant(container.cgroup.path):
            try:
                self.distant.keep(other.cgroup.path for other in self.containers.values())
            except OSError as error:  # a full disk, say: the next keeper will look for a group that is gone
                complain(f"the list of cgroups outside the instance's own is not up to date: {error}")

    def _finish(self, process: Process, status: int) -> None:
        """A process that was started has ended."""
        container = process.container
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) and status != UNKNOWN else None
        ending = {
            "id": container.id,
            "exec_id": process.exec_id,
            "code": 128 + number if number is not None else os.WEXITSTATUS(status),
            "signal": number,
            "is_unknown": status == UNKNOWN,
            "oom_killed": container.cgroup.oom_kills() > 0,
            "finished_ns": process.ended_ns or time.time_ns(),
            "lost_log_bytes": 0,
        }
        if process.exec_id is None:
            if not container.has_own_pids:
                container.cgroup.kill()  # with a pid namespace of its own the kernel has done so
            process.close_streams()
            self._loop.remove(process.pidfd)  # where it was watched
            if container.log is not None:
                container.log.close()
                ending["lost_log_bytes"] = container.log.lost_bytes
            container.paused = False
            self.exit_files.save(container.bundle, ending)
        else:
            process.close_streams()
            process.forget()
            container.execs.pop(process.exec_id, None)
            container.remember(process.exec_id, ending)
        process.ending = ending
        self.broadcast({"event": "exit", **ending})
        for reply in process.waiters:
            reply(ending, None)
        process.waiters = []
        if process.exec_id is None:
            with contextlib.suppress(SystemFailure):  # an exec may still be dying: `delete` removes it then
                container.has_group = not container.cgroup.remove()
        self._check_empty()

    def _check_empty(self) -> None:
        if self._on_empty is not None and all(container.state == "exited" for container in self.containers.values()):
            self._on_empty()
