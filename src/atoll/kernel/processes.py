"""New processes in new namespaces: clone3, setns, unshare.

clone3 is called bare, so Python's own fork hooks do not run: only a process with a single thread may call `clone`, and its child should do
little, then exec or `os._exit`.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from atoll.kernel import syscall

NEWNS: Final = 0x00020000
NEWCGROUP: Final = 0x02000000
NEWUTS: Final = 0x04000000
NEWIPC: Final = 0x08000000
NEWUSER: Final = 0x10000000
NEWPID: Final = 0x20000000
NEWNET: Final = 0x40000000
NEWTIME: Final = 0x00000080

# An OCI namespace type: its flag and its name below /proc/<pid>/ns.
NAMESPACES: Final = {
    "mount": (NEWNS, "mnt"),
    "cgroup": (NEWCGROUP, "cgroup"),
    "uts": (NEWUTS, "uts"),
    "ipc": (NEWIPC, "ipc"),
    "pid": (NEWPID, "pid"),
    "network": (NEWNET, "net"),
    "user": (NEWUSER, "user"),
    "time": (NEWTIME, "time"),
}
_CLONE_FILES: Final = 0x00000400
_CLONE_PARENT: Final = 0x00008000
_CLONE_INTO_CGROUP: Final = 0x200000000


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def clone(namespaces: int = 0, *, cgroup: int | None = None, as_sibling: bool = False, share_files: bool = False) -> int:
    """Fork into new `namespaces`; returns the child's pid, and 0 in the child.

    `cgroup` is an open directory of the unified hierarchy the child is born in. `as_sibling` makes it a child of our parent. With
    `share_files` both have one table of descriptors: what one opens or closes is open or closed in the other, and the end of one of them
    closes nothing.
    """
    arguments = _CloneArgs(flags=namespaces, exit_signal=0 if as_sibling else signal.SIGCHLD)
    if as_sibling:
        arguments.flags |= _CLONE_PARENT
    if share_files:
        arguments.flags |= _CLONE_FILES
    if cgroup is not None:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    return syscall.call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments), what="create process", held=True)


def unshare(namespaces: int) -> None:
    syscall.checked(syscall.libc.unshare(ctypes.c_int(namespaces)), "create namespaces")


def join(fd: int, namespaces: int, what: str) -> None:
    """Enter the namespace open as `fd`; with a pidfd, those of the process that `namespaces` names. A pid namespace counts for children."""
    syscall.call("setns", fd, namespaces, what=f"join {what}")


def join_path(path: str, namespace: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        join(fd, namespace, f"namespace {path}")
    finally:
        os.close(fd)


def become_root() -> None:
    """Of the user namespace just joined, where we are still whoever we were outside: nobody. All capabilities are kept."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def keep_only(descriptors: set[int]) -> None:
    """Close every other descriptor from 3 on: none may reach a container (CVE-2024-21626), nor hold a stranger's pipe open."""
    first = 3
    for kept in sorted(fd for fd in descriptors if fd >= first):
        if kept > first:
            _close_range(first, kept - 1)
        first = kept + 1
    _close_range(first, 0xFFFFFFFF)


def _close_range(first: int, last: int) -> None:
    syscall.call("close_range", first, last, 0, what="close descriptors")
