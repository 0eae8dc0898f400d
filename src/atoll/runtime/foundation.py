"""What a keeper stands on: made by the first process, and still there under every keeper that follows.

The lock, the listening socket, the pipe from the holder and the memory of the journal stay open in the table that holder and keepers share.
All are in a cgroup of their own, so that no service manager that ends the engine's group finds them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import time
from typing import NamedTuple

from atoll.errors import SystemFailure
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime.complain import complain
from atoll.runtime.journal import NAME as JOURNAL
from atoll.runtime.records import open_descriptors

DEATHS_SIZE = 1 << 20  # bytes of the pipe that exits wait in: 131,072 of them
REMOVE_TRIES, REMOVE_STEP_S = 500, 0.002


class Foundation(NamedTuple):
    """The descriptors."""

    lock: int
    listener: socket.socket
    deaths: int  # the reading end of the holder's pipe
    deaths_told: int
    journal: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self.lock, self.listener.fileno(), self.deaths, self.deaths_told, self.journal


def lay(home: str, instance_id: str, ready: int) -> Foundation:
    """For the first keeper. Everything else but `ready` is closed."""
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
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.umask(0o177)
    listener.bind(path)
    os.umask(0o022)
    listener.listen(64)
    listener.setblocking(False)
    deaths, deaths_told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with contextlib.suppress(OSError):  # over the user's budget for pipes: then the holder waits sooner
        fcntl.fcntl(deaths_told, fcntl.F_SETPIPE_SZ, DEATHS_SIZE)
    return Foundation(lock, listener, deaths, deaths_told, os.memfd_create(JOURNAL, os.MFD_CLOEXEC))


def inherit(descriptors: str) -> Foundation:
    """For the successor of a holder, which has executed another program with all of it open."""
    lock, listener, deaths, deaths_told, journal = (int(word) for word in descriptors.split(","))
    for fd, _ in open_descriptors():
        if fd > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
    sock = socket.socket(fileno=listener)
    sock.setblocking(False)
    return Foundation(lock, sock, deaths, deaths_told, journal)


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


def leave_group(layout: Layout, holder: int) -> None:
    """At the end, with the holder."""
    for point in (*layout.named, layout.unified):
        if point:
            _move(point)
            with contextlib.suppress(ProcessLookupError):
                _move(point, holder)


def _move(directory: str, pid: int = 0) -> None:
    with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write(str(pid))


def remove_group(group: Cgroup) -> None:
    """At the end there is time to wait."""
    try:
        for _ in range(REMOVE_TRIES):
            if group.remove():
                return
            time.sleep(REMOVE_STEP_S)
        complain(f"cgroup {group.path} cannot be removed: it is still in use")
    except (SystemFailure, OSError) as error:
        complain(str(error))


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
