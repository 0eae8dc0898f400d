"""How the kernel treats a process: scheduling policy, I/O priority, execution domain. The names are those of the OCI runtime-spec."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Final

from atoll.errors import InvalidInput
from atoll.kernel import syscall

POLICIES: Final = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
FLAGS: Final = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
DOMAINS: Final = {"LINUX": 0x0000, "LINUX32": 0x0008}
_IO_CLASS_SHIFT: Final = 13
_IO_PRIORITY_MAX: Final = 7
_IO_WHO_PROCESS: Final = 1


class _SchedAttr(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_scheduler(
    policy: str, *, nice: int = 0, priority: int = 0, flags: Iterable[str] = (), deadline: tuple[int, int, int] = (0, 0, 0)
) -> None:
    """Of the calling process. `deadline` is (runtime, deadline, period) in ns, for SCHED_DEADLINE. Raises InvalidInput, SystemFailure."""
    bits = 0
    for flag in flags:
        bits |= _known(FLAGS, flag, "scheduler flag")
    attributes = _SchedAttr(ctypes.sizeof(_SchedAttr), _known(POLICIES, policy, "scheduler policy"), bits, nice, priority, *deadline)
    syscall.call("sched_setattr", 0, ctypes.byref(attributes), 0, what=f"set the scheduler to {policy}")


def set_io_priority(kind: str, priority: int) -> None:
    """Of the calling process, 0 (first) to 7. Raises InvalidInput, SystemFailure."""
    if not 0 <= priority <= _IO_PRIORITY_MAX:
        raise InvalidInput(f"an I/O priority is 0 to {_IO_PRIORITY_MAX}, not {priority}")
    value = _known(IO_CLASSES, kind, "I/O class") << _IO_CLASS_SHIFT | priority
    syscall.call("ioprio_set", _IO_WHO_PROCESS, 0, value, what=f"set the I/O priority to {kind} {priority}")


def set_domain(domain: str) -> None:
    """The execution domain (personality(2)): LINUX32 makes uname speak of a 32-bit machine. Raises InvalidInput, SystemFailure."""
    syscall.checked(syscall.libc.personality(ctypes.c_ulong(_known(DOMAINS, domain, "personality"))), f"set the personality to {domain}")


def _known(table: dict[str, int], name: str, what: str) -> int:
    if name not in table:
        raise InvalidInput(f"unknown {what} {name!r}: use one of {', '.join(table)}")
    return table[name]
