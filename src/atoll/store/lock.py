"""One owner for a store: an exclusive lock on a file that names the holder's pid.

The lock is the kernel's (flock), so it ends with its process, however that ends; the pid in the file only serves the message.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from atoll.errors import InUse


class OwnerLock:
    def __init__(self, path: Path) -> None:
        """Take the lock at once. Raises InUse naming the process that has it."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise InUse(f"store {path.with_suffix('')} is in use by process {holder}: stop it first") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)
