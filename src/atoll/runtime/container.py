"""What the keeper knows of a container and of the processes it started in it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from atoll.errors import Conflict
from atoll.kernel.cgroups import Cgroup
from atoll.runtime.journal import KeptLog
from atoll.runtime.loop import Loop
from atoll.runtime.records import NOTHING, Record
from atoll.runtime.streams import Input, Output

EXEC_ENDINGS_MAX = 128  # kept for `wait` after the fact; a probe every second would else fill the memory

Reply = Callable[[dict[str, Any] | None, dict[str, Any] | None], None]  # (ok, error)


class Process:
    """A container's main process (`exec_id` None) or an exec.

    `status` is the socket to the child until its execve; `reply` answers the request that started it.
    """

    __slots__ = (
        "container",
        "early_status",
        "ended_ns",
        "ending",
        "error",
        "exec_id",
        "inputs",
        "is_attended",
        "outputs",
        "pid",
        "pidfd",
        "ready",
        "record",
        "reply",
        "started",
        "status",
        "terminal",
        "waiters",
        "waiting_ends",
    )

    def __init__(self, container: Container, exec_id: str | None, status: socket.socket | None, reply: Reply | None) -> None:
        self.container = container
        self.exec_id = exec_id
        self.status = status
        self.reply = reply
        self.pid = 0
        self.pidfd = -1  # of a main process
        self.record: Record | None = None  # what the next keeper will need
        self.error: dict[str, Any] | None = None  # why there will be no execve
        self.early_status: int | None = None  # it had ended before its pid was known
        self.ready = False  # the child has said that execve comes next
        self.started = False  # execve has succeeded
        self.is_attended = False  # its start is over when a helper says so, be it alive or not
        self.terminal = -1
        self.inputs: Input | None = None
        self.outputs: dict[str, Output] = {}
        self.waiters: list[Reply] = []
        self.waiting_ends: dict[str, int] = {}  # attached before there was a terminal
        self.ended_ns = 0
        self.ending: dict[str, Any] | None = None

    def keep(self, fixed: dict[str, Any]) -> None:
        """Write down what the next keeper must know, `fixed` and the descriptors; from now on it is kept up to date."""
        if self.exec_id is None and self.pid:
            self.pidfd = os.pidfd_open(self.pid)  # a child not reaped yet: the number cannot mean another process
        numbers = {name: output.fileno() for name, output in self.outputs.items()}
        if self.inputs is not None:
            numbers["stdin"] = self.inputs.fileno()
        status = -1 if self.status is None else self.status.fileno()
        fixed = {**fixed, "attended": self.is_attended}
        self.watch(Record.make(fixed, pid=self.pid, pidfd=self.pidfd, status=status, **numbers))

    def watch(self, record: Record) -> None:
        """Tell `record` of what is closed, before it is: the number may soon mean something else."""
        self.record = record
        for name, output in self.outputs.items():
            output.on_close = partial(record.set, name, NOTHING)
        if self.inputs is not None:
            self.inputs.on_close = partial(record.set, "stdin", NOTHING)

    def take_terminal(self, loop: Loop, master: int) -> None:
        """The child has opened a terminal and passed its master."""
        self.terminal = master
        self.note("terminal", master)
        log = self.container.log if self.exec_id is None else None
        self.outputs["stdout"] = Output(loop, os.dup(master), "stdout", log)
        self.inputs = Input(loop, os.dup(master), close_once=False)

    def be(self, pid: int) -> None:
        """Its pid has been told."""
        self.pid = pid
        self.note("pid", pid)
        if self.exec_id is None:
            with contextlib.suppress(ProcessLookupError):
                self.pidfd = os.pidfd_open(pid)
                self.note("pidfd", self.pidfd)

    def note(self, name: str, *values: int) -> None:
        if self.record is not None:
            self.record.set(name, *values)

    def note_end(self, status: int) -> None:
        """Before it is reaped: then its parent alone would know."""
        self.ended_ns = time.time_ns()
        self.note("wait_status", status, self.ended_ns)

    def send_signal(self, number: int) -> None:
        """Raises Conflict where it has ended."""
        try:
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.pid:
                os.kill(self.pid, number)  # ours and not reaped yet: the number cannot mean another process
        except ProcessLookupError:
            raise Conflict(f"container {self.container.id} is not running") from None

    def give_up(self) -> None:
        """It is to be no process of the container, before anyone follows it."""
        if self.status is not None:
            self.status.close()
            self.status = None
        self.close_streams()
        self.forget()

    def forget(self) -> None:
        """It has ended, and whoever had to has learnt it."""
        if self.record is not None:
            self.record.close()
            self.record = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def close_streams(self) -> None:
        for output in self.outputs.values():
            output.drain()
        self.outputs = {}
        if self.inputs is not None:
            self.inputs.close()
            self.inputs = None
        if self.terminal >= 0:
            self.note("terminal", NOTHING)
            os.close(self.terminal)
            self.terminal = -1


class Container:
    __slots__ = (
        "attempt",
        "bundle",
        "cgroup",
        "endings",
        "execs",
        "has_group",
        "has_own_pids",
        "id",
        "log",
        "main",
        "paused",
        "poststop",
        "runtime",
        "started_ns",
    )

    def __init__(self, container_id: str, bundle: str, cgroup: Cgroup, log: KeptLog | None) -> None:
        self.id = container_id
        self.bundle = bundle
        self.cgroup = cgroup
        self.log = log
        self.main: Process | None = None
        self.execs: dict[str, Process] = {}
        self.endings: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.has_group = True
        self.has_own_pids = True
        self.runtime: Any = None  # an external.Target where another runtime has it
        self.poststop: tuple[Any, dict[str, Any]] | None = None  # hooks to run at the delete, and the state they are given
        self.paused = False
        self.attempt = ""  # the client's name for its start: asked again with the same one, it is the same start
        self.started_ns = 0

    def remember(self, exec_id: str, ending: dict[str, Any]) -> None:
        self.endings[exec_id] = ending
        while len(self.endings) > EXEC_ENDINGS_MAX:
            self.endings.popitem(last=False)

    @property
    def state(self) -> str:
        if self.main is None or self.main.ending is not None:
            return "exited"
        return "paused" if self.paused else "running"

    def describe(self) -> dict[str, Any]:
        main = self.main
        return {
            "id": self.id,
            "pid": main.pid if main else 0,
            "status": self.state,
            "started_ns": self.started_ns,
            "bundle": self.bundle,
            "cgroup": self.cgroup.path,
            "exit": main.ending if main else None,
            "execs": list(self.execs),
        }
