"""The command line that ps(1) shows of a process, written over the one it was started with.

Raising the end of the arguments by prctl(2) PR_SET_MM would need CAP_SYS_RESOURCE; writing into the memory that they take needs nothing,
but leaves only as much room as they had. Where that memory is has to be asked while /proc is the host's: a container could mount its own.
"""

from __future__ import annotations

import ctypes
import functools

_ARGUMENTS = 45  # arg_start and arg_end are fields 48 and 49 of proc_pid_stat(5), counted from the third


@functools.cache
def arguments() -> tuple[int, int]:
    """Where the arguments begin and end. The first call is what later ones answer, in forked children too. Raises OSError."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[_ARGUMENTS]), int(fields[_ARGUMENTS + 1])


def write(words: list[str]) -> None:
    """Shows `words` from now on, cut to the room there is. Raises OSError."""
    start, end = arguments()
    room = end - start
    text = "\0".join(words).encode(errors="surrogateescape")[: room - 1]
    ctypes.memmove(start, text.ljust(room, b"\0"), room)  # the kernel takes the last byte for a sign: it must stay NUL
