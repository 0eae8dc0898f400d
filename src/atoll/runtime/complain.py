"""One line to the keeper's log (its stderr). The disk being full must not be the end of the keeper, so a line that cannot be written is
dropped; print would raise.

The log is bounded: what is too long becomes the log before, and the file starts anew. It is emptied in place, since holder, keeper and
their children all have it open, each to append.
"""

from __future__ import annotations

import os
import stat
import time

LOG_MAX = 1 << 20  # bytes; there may be twice as much, with the log before


def complain(text: str) -> None:
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
    try:
        _turn_over()
        os.write(2, line.encode(errors="backslashreplace"))
    except OSError:
        return


def _turn_over() -> None:
    status = os.fstat(2)
    if status.st_size < LOG_MAX or not stat.S_ISREG(status.st_mode):
        return
    path = os.readlink("/proc/self/fd/2")
    with open("/proc/self/fd/2", "rb") as full, open(f"{path}.1", "wb", opener=_private) as before:
        before.write(full.read())
    os.ftruncate(2, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
