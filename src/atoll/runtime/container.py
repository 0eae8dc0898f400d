"""What the keeper knows of a container and of the processes it started in it."""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from atoll.kernel.cgroups import Cgroup
from atoll.runtime.logs import LogFile
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
        "ending",
        "error",
        "exec_id",
        "inputs",
        "is_attended",
        "outputs",
        "pid",
        "ready",
        "reply",
        "started",
        "status",
        "terminal",
        "waiters",
        "waiting_ends",
    )

    def __init__(self, container: Container, exec_id: str | None, status: socket.socket, reply: Reply) -> None:
        self.container = container
        self.exec_id = exec_id
        self.status: socket.socket | None = status
        self.reply: Reply | None = reply
        self.pid = 0
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
        self.ending: dict[str, Any] | None = None

    def close_streams(self) -> None:
        for output in self.outputs.values():
            output.drain()
        self.outputs = {}
        if self.inputs is not None:
            self.inputs.close()
            self.inputs = None
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


class Container:
    __slots__ = ("bundle", "cgroup", "endings", "execs", "has_own_pids", "id", "log", "main", "paused", "poststop", "runtime", "started_ns")

    def __init__(self, container_id: str, bundle: str, cgroup: Cgroup, log: LogFile | None) -> None:
        self.id = container_id
        self.bundle = bundle
        self.cgroup = cgroup
        self.log = log
        self.main: Process | None = None
        self.execs: dict[str, Process] = {}
        self.endings: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.has_own_pids = True
        self.runtime: Any = None  # an external.Target where another runtime has it
        self.poststop: tuple[Any, dict[str, Any]] | None = None  # hooks to run at the delete, and the state they are given
        self.paused = False
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
