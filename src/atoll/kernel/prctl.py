"""prctl(2): the few attributes of a process that only it can set."""

from __future__ import annotations

import ctypes
from typing import Final

from atoll.kernel import syscall

SET_PDEATHSIG: Final = 1
SET_DUMPABLE: Final = 4
SET_KEEPCAPS: Final = 8
SET_NAME: Final = 15
CAPBSET_DROP: Final = 24
SET_CHILD_SUBREAPER: Final = 36
SET_NO_NEW_PRIVS: Final = 38
GET_NO_NEW_PRIVS: Final = 39
CAP_AMBIENT: Final = 47
AMBIENT_RAISE: Final = 2
AMBIENT_CLEAR_ALL: Final = 4


_prctl = syscall.libc.prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def call(option: int, *arguments: int, what: str) -> int:
    """Raises SystemFailure."""
    return syscall.checked(_prctl(option, *arguments, *(0,) * (4 - len(arguments))), what)


def set_dumpable(*, dumpable: bool) -> None:
    """A process that is not dumpable has its /proc/<pid>/{exe,fd,mem} closed to others without CAP_SYS_PTRACE; so have its children."""
    call(SET_DUMPABLE, int(dumpable), what="set dumpable")


def set_child_subreaper() -> None:
    """Orphaned descendants become children of this process."""
    call(SET_CHILD_SUBREAPER, 1, what="become a subreaper")


def set_no_new_privs() -> None:
    call(SET_NO_NEW_PRIVS, 1, what="set no_new_privs")


def keep_capabilities() -> None:
    """Keep the permitted set over the next setuid."""
    call(SET_KEEPCAPS, 1, what="keep capabilities")


def set_name(name: str) -> None:
    """The 15 bytes that ps shows."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    call(SET_NAME, ctypes.addressof(buffer), what="set the process name")
