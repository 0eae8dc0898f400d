"""Children cloned ahead of their start, while the engine still writes down the container and its client is on its way to start it.

Cloning the keeper and touching the first pages is a quarter of a container's start, and needs no more than the container's id and its
namespaces. The engine tells both as soon as it is asked for the container (`expect`), or before that where one start follows another. The
spare is the container's init, only early: in the same namespaces and the same cgroup, waiting for the rest of the plan. Only the mounts it
takes when it wakes, since those of the container's volumes and networks are made meanwhile. It ends when its socket closes: because its
start did not come in time, because it does not suit the start that came, or because the keeper is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from atoll.errors import AtollError
from atoll.kernel import processes
from atoll.kernel.cgroups import Cgroup
from atoll.runtime import init, protocol
from atoll.runtime.bundle import read_spec
from atoll.runtime.constants import EXPECTED_S
from atoll.runtime.groups import Groups
from atoll.runtime.loop import Loop

SPARES_MAX = 16


class Spare:
    def __init__(self, cgroup: Cgroup, namespaces: int, status: socket.socket, pid: int) -> None:
        """`namespaces` are the flags that it was asked for with; `status` is the socket that it waits at."""
        self.cgroup = cgroup
        self.namespaces = namespaces
        self.status = status
        self.pid = pid

    def read(self, bundle: str) -> None:
        """Have it read its bundle, before it is known whether it suits."""
        with contextlib.suppress(OSError):  # it has died, which `become` tells
            protocol.send(self.status, {"bundle": bundle})

    def become(self, overlay: Mapping[str, Any] | None, stdio: tuple[int, ...]) -> bool:
        """Have it be the container's init, and wait for its groups as all do; False where it has died."""
        try:
            protocol.send(self.status, {"overlay": overlay}, stdio)
        except OSError:
            return False
        return True


class Spares:
    def __init__(self, loop: Loop, groups: Groups, plan: Callable[[str, Cgroup, socket.socket], init.Plan]) -> None:
        """`plan` gives what is known of a container's start before it comes."""
        self._loop = loop
        self._groups = groups
        self._plan = plan
        self._waiting: dict[str, Spare] = {}  # by the container's id

    def add(self, container: str, cgroup: Cgroup, namespaces: int) -> None:
        """Clone one, unless the container has one. Raises AtollError."""
        if container in self._waiting or len(self._waiting) >= SPARES_MAX:
            return
        cgroup.create_unified({})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        unified = cgroup.open_unified()
        try:
            pid = processes.clone(namespaces & ~processes.NEWNS, cgroup=unified)
            if pid == 0:
                init.run(self._plan(container, cgroup, theirs), _wait)
        except AtollError:
            ours.close()
            self._groups.end(cgroup)
            raise
        finally:
            theirs.close()
            if unified is not None:
                os.close(unified)
        spare = self._waiting[container] = Spare(cgroup, namespaces, ours, pid)
        self._loop.later(EXPECTED_S, lambda: self._expire(container, spare))

    def take(self, container: str) -> Spare | None:
        """It is the caller's from now on: to be used, or to be ended."""
        return self._waiting.pop(container, None)

    def end(self, spare: Spare) -> None:
        """Its group is then being ended too, which `Groups.after` tells."""
        spare.status.close()
        self._groups.end(spare.cgroup)

    def end_all(self) -> list[Cgroup]:
        """The groups that they were in."""
        spares, self._waiting = list(self._waiting.values()), {}
        for spare in spares:
            self.end(spare)
        return [spare.cgroup for spare in spares]

    def _expire(self, container: str, spare: Spare) -> None:
        if self._waiting.get(container) is spare:
            self.end(self._waiting.pop(container))


def _wait(plan: init.Plan) -> NoReturn:
    """Be the spare, and in the end the container's init."""
    told, _ = _receive(plan)
    bundle = told["bundle"]
    processes.unshare(processes.NEWNS)
    spec = read_spec(bundle)
    told, fds = _receive(plan)
    stdio = (fds[0], fds[1], fds[2]) if fds else None
    init.start(plan._replace(spec=spec, process=spec["process"], bundle=bundle, overlay=told["overlay"], stdio=stdio))


def _receive(plan: init.Plan) -> tuple[dict[str, Any], list[int]]:
    received = protocol.receive(plan.status)
    if received is None:
        os._exit(0)
    return received
