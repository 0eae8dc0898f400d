"""inotify(7): be told that a file has grown or was moved, instead of looking again and again.

`Watch` is one inotify descriptor; register `fileno()` with the loop's reader and call `drain()` when it fires. What exactly happened is not
handed on: whoever was woken looks at the file, which is right even when the kernel has joined or dropped events.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

IN_MODIFY: Final = 0x002
IN_CREATE: Final = 0x100
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Raises OSError (EMFILE or ENOSPC) where the user's inotify limits are reached."""

    def __init__(self) -> None:
        self._fd = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd < 0:
            raise _error("inotify_init1")
        self._watched = -1

    def fileno(self) -> int:
        return self._fd

    def watch(self, path: str, mask: int) -> None:
        """Watches the file at `path` in place of the one watched before."""
        if self._watched >= 0:
            _libc.inotify_rm_watch(self._fd, self._watched)  # fails where the file is gone, which took the watch along
        self._watched = int(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask))
        if self._watched < 0:
            raise _error(path)

    def also(self, path: str, mask: int) -> None:
        """Watches the file at `path` beside the one of `watch`, for good."""
        if int(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask)) < 0:
            raise _error(path)

    def drain(self) -> None:
        """Empties the queue of events."""
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)
