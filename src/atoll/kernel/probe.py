"""What this machine allows, looked up without changing anything: the facts `atoll doctor` judges."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from typing import NamedTuple

from atoll.kernel import capabilities
from atoll.kernel.cgroups.layout import Layout

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")


class Machine(NamedTuple):
    """Facts about the machine and about this process' place on it."""

    root: bool
    kernel: str
    architecture: str
    capabilities: frozenset[str]
    missing_namespaces: tuple[str, ...]
    cgroup_mode: str  # v1, hybrid, v2 or none
    controllers: frozenset[str]
    cgroups_writable: bool
    overlay: bool
    seccomp: bool
    open_files: int
    free_bytes: int


def look(home: str) -> Machine:
    """HOME need not exist yet: its nearest existing parent tells the free space."""
    layout = Layout.discover()
    names = ("memory", "cpu", "pids", "cpuset", "devices", "freezer", "blkio")
    place = home
    while not os.path.exists(place):
        place = os.path.dirname(place)
    return Machine(
        root=os.geteuid() == 0,
        kernel=platform.release(),
        architecture=platform.machine(),
        capabilities=frozenset(capabilities.names(capabilities.sets()["effective"])),
        missing_namespaces=tuple(name for name in NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")),
        cgroup_mode=layout.mode,
        controllers=frozenset(name for name in names if layout.has(name)),
        cgroups_writable=layout.mode != "none" and all(os.access(point, os.W_OK) for point in (*layout.points, layout.unified) if point),
        overlay=_has_filesystem("overlay"),
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        open_files=os.sysconf("SC_OPEN_MAX"),
        free_bytes=shutil.disk_usage(place).free,
    )


def has_library(name: str) -> bool:
    """Whether the dynamic linker finds NAME (`libnftables.so.1`)."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _has_filesystem(name: str) -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == name for line in file)
