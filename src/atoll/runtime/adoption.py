"""What a keeper takes over from one that died: containers with their streams and their names, out of the records it left.

The descriptors are open already (see `holder`); what no record names belonged to clients, half-done work and the dead keeper itself, and is
closed. Clients see that as the end of their connection and come again; who was attached sees the end of the stream.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from atoll.errors import AtollError, InvalidInput
from atoll.runtime import launch
from atoll.runtime.bundle import read_spec
from atoll.runtime.complain import complain
from atoll.runtime.container import Container, Process
from atoll.runtime.journal import Journal
from atoll.runtime.life import Life
from atoll.runtime.loop import Loop
from atoll.runtime.records import DESCRIPTORS, NOTHING, Record, open_descriptors
from atoll.runtime.streams import Input, Output

Maker = Callable[[Mapping[str, Any], Mapping[str, Any], str], Container]  # of a start's request, the spec and the cgroup's path


def close_others(kept: Collection[int], records: list[Record]) -> None:
    """Close every descriptor but those in `kept`, the records and what they name."""
    needed = {0, 1, 2, *kept}
    for record in records:
        numbers = record.numbers()
        needed.add(record.fd)
        needed.update(numbers[name] for name in DESCRIPTORS)
    # Connections first: a client shall know that it is the keeper that has gone when it sees a stream end.
    for fd, _ in sorted(open_descriptors(), key=lambda item: (not item[1].startswith("socket:"), item[0])):
        if fd not in needed:
            with contextlib.suppress(OSError):
                os.close(fd)


def adopt(records: list[Record], loop: Loop, life: Life, journal: Journal, make: Maker, holder: int) -> None:
    """Every process of which there is a record; those that have ended meanwhile end now."""
    for record in records:
        if "request" in record.fixed:
            _adopt_container(record, loop, life, make)
    for record in records:
        if "exec" in record.fixed:
            _adopt_exec(record, loop, life)
    _finish_output(life, journal)
    for container in list(life.containers.values()):
        for process in (container.main, *container.execs.values()):
            if process is None or process.record is None:
                continue
            status = process.record.numbers()["wait_status"]
            if status != NOTHING:
                life.on_death(process.pid, status)
            elif process.pidfd >= 0 and _parent(process.pid) != holder:
                life.watch(process)


def _adopt_container(record: Record, loop: Loop, life: Life, make: Maker) -> None:
    request = record.fixed["request"]
    try:
        spec = read_spec(request["bundle"])
    except InvalidInput:
        spec = {}  # it is of use for hooks alone
    try:
        container = make(request, spec, record.fixed["cgroup"])
        if container.log is not None:
            container.log.take_up(record)
        container.main = _restore(loop, container, record)
    except (AtollError, OSError) as error:
        complain(f"container {request['container']} cannot be taken over, and is ended: {error}")
        _discard(record)
        return
    container.has_own_pids = record.fixed["own_pids"]
    container.paused = container.cgroup.is_frozen()
    container.started_ns = record.numbers()["started_ns"]
    life.containers[container.id] = container
    if container.main.status is not None and not container.main.ready and container.runtime is None and spec:
        try:
            launch.let_go(container.main, spec["linux"].get("resources") or {})
        except AtollError as error:
            complain(f"container {container.id} cannot be let go: {error}")
            container.cgroup.kill()
    _begin(container.main, life)


def _adopt_exec(record: Record, loop: Loop, life: Life) -> None:
    container = life.containers.get(record.fixed["container"])
    if container is None:
        _discard(record)
    elif record.fixed["attached"] or record.numbers()["status"] != NOTHING:
        _end_session(record, container)
    else:
        process = container.execs[record.fixed["exec"]] = _restore(loop, container, record)
        _begin(process, life)


def _restore(loop: Loop, container: Container, record: Record) -> Process:
    """The process the record tells of, its output read from now on. Raises OSError where a descriptor is gone."""
    numbers = record.numbers()
    status = None
    if numbers["status"] != NOTHING:
        status = socket.socket(fileno=numbers["status"])
        status.setblocking(False)
    process = Process(container, record.fixed.get("exec"), status, None)
    process.pid, process.pidfd = numbers["pid"], numbers["pidfd"]
    process.ready, process.started = bool(numbers["ready"]), numbers["started_ns"] > 0
    process.ended_ns = numbers["ended_ns"]
    process.is_attended = record.fixed["attended"]
    log = container.log if process.exec_id is None else None
    for name in ("stdout", "stderr"):
        if numbers[name] != NOTHING:
            process.outputs[name] = Output(loop, numbers[name], name, log)
    if numbers["stdin"] != NOTHING:
        once = record.fixed.get("request", {}).get("stdin_once", True)
        process.inputs = Input(loop, numbers["stdin"], close_once=bool(once))
    process.watch(record)
    if numbers["terminal"] != NOTHING:
        process.take_terminal(loop, numbers["terminal"])
    return process


def _parent(pid: int) -> int | None:
    """None where the process has been reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _begin(process: Process, life: Life) -> None:
    life.take_up(process)
    if process.status is not None:
        life.follow(process, {})


def _finish_output(life: Life, journal: Journal) -> None:
    """What the dead keeper had read and not yet written."""
    left = journal.left()
    for container in life.containers.values():
        record = container.main.record if container.main is not None else None
        if left is not None and container.log is not None and record is not None and record.fd == left.record:
            container.log.resume(left)
    journal.done()


def _discard(record: Record) -> None:
    """Close what the record names, and it."""
    numbers = record.numbers()
    for name in DESCRIPTORS:
        if numbers[name] != NOTHING:
            with contextlib.suppress(OSError):
                os.close(numbers[name])
    record.close()


def _end_session(record: Record, container: Container) -> None:
    """An exec whose client has lost it: the program is ended, since nobody would read or write it again."""
    pid = record.numbers()["pid"]
    if pid > 0:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if pid in container.cgroup.pids():  # and not another that has got its number
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
    _discard(record)
