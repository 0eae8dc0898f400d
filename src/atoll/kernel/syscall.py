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
    "x86_64": {"capget": 125, "capset": 126, "pivot_root": 155, "bpf": 321, "seccomp": 317, "setns": 308},
    "aarch64": {"capget": 90, "capset": 91, "pivot_root": 41, "bpf": 280, "seccomp": 277, "setns": 268},
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
libc_held: Final = ctypes.PyDLL(None, use_errno=True)


def call(name: str, *arguments: Any, what: str, held: bool = False) -> int:
    """Make the system call `name`. Integers are passed as long, bytes as pointers. Raises SystemFailure(what, errno)."""
    result = attempt(name, *arguments, held=held)
    if result < 0:
        raise failure(what, -result)
    return result


def attempt(name: str, *arguments: Any, held: bool = False) -> int:
    """As `call`, but gives -errno in place of an exception."""
    number = NUMBERS.get(name)
    if number is None:
        raise NotSupported(f"system call {name}: no number known for {platform.machine()}")
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = (libc_held if held else libc).syscall(ctypes.c_long(number), *words)
    return -ctypes.get_errno() if result == -1 else result


def checked(result: int, what: str) -> int:
    """`result` of a libc function, unless it is -1. Raises SystemFailure."""
    if result == -1:
        raise failure(what, ctypes.get_errno())
    return result


def failure(what: str, errno: int) -> SystemFailure | NotSupported:
    if errno == errnos.ENOSYS:
        return NotSupported(f"{what}: this kernel ({platform.release()}) does not have the system call; Atoll needs Linux 5.12 or later")
    return SystemFailure(what, errno)
