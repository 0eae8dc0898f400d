"""The one door to libc: system calls that Python 3.11's os does not have, and errno turned into SystemFailure.

Numbers are for the architectures Atoll runs on. From pidfd_open on they are the same everywhere (asm-generic's table), the older ones
differ.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import platform
from typing import Any, Final

from atoll.errors import NotSupported, SystemFailure

_OLD_NUMBERS: Final = {
    "x86_64": {
        "capget": 125,
        "capset": 126,
        "pivot_root": 155,
        "bpf": 321,
        "seccomp": 317,
        "setns": 308,
        "ioprio_set": 251,
        "sched_setattr": 314,
    },
    "aarch64": {
        "capget": 90,
        "capset": 91,
        "pivot_root": 41,
        "bpf": 280,
        "seccomp": 277,
        "setns": 268,
        "ioprio_set": 30,
        "sched_setattr": 274,
    },
}
NUMBERS: Final = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "mount_setattr": 442,
    **_OLD_NUMBERS.get(platform.machine(), {}),
}

libc: Final = ctypes.CDLL(None, use_errno=True)
# Without releasing the interpreter's lock: for calls after which there are two of us.
_libc_held: Final = ctypes.PyDLL(None, use_errno=True)


def _entries(library: ctypes.CDLL) -> list[Any]:
    """syscall(2) once for each number of arguments. A c_void_p takes integers, bytes, None and references alike, as a register does."""
    entries = []
    for count in range(7):
        entry = library["syscall"]  # a new function object at each look-up
        entry.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * count]
        entry.restype = ctypes.c_long
        entries.append(entry)
    return entries


_ENTRIES: Final = _entries(libc)
_ENTRIES_HELD: Final = _entries(_libc_held)


def call(name: str, *arguments: Any, what: str, held: bool = False) -> int:
    """Make the system call `name` with integers, bytes, None or ctypes references. Raises SystemFailure(what, errno)."""
    number = NUMBERS.get(name)
    if number is None:
        raise NotSupported(f"system call {name}: no number known for {platform.machine()}")
    result: int = (_ENTRIES_HELD if held else _ENTRIES)[len(arguments)](number, *arguments)
    if result == -1:
        raise failure(what, ctypes.get_errno())
    return result


def checked(result: int, what: str) -> int:
    """`result` of a libc function, unless it is -1. Raises SystemFailure."""
    if result == -1:
        raise failure(what, ctypes.get_errno())
    return result


def failure(what: str, errno: int) -> SystemFailure | NotSupported:
    if errno == errnos.ENOSYS:
        return NotSupported(f"{what}: this kernel ({platform.release()}) does not have the system call; Atoll needs Linux 5.12 or later")
    return SystemFailure(what, errno)
