"""Downloads that broke off, kept so that the next pull goes on where the last one stopped, be it after a kill -9.

Each lies under the digest it was to have and holds the first bytes of that blob; nothing else is noted of it, and nothing of it is believed
before the whole has been verified. A download holds its file by flock(2): who comes second downloads to a file of its own, and only what
nobody holds is taken away, after a day or by prune.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from atoll.images.usage import BLOCK

KEPT_S: Final = 86_400.0  # how long nobody need come back; containerd's ingests have as long
WORTH: Final = 1 << 20  # bytes; less is fetched again sooner than it is looked after


class Partials:
    """One directory of `<hex of sha256>`, on the file system of the blobs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open(self, digits: str) -> tuple[BinaryIO, Path] | None:
        """The file of a digest, made where there is none, held until it is closed; None where somebody else holds it."""
        path = self._directory / digits
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if not _hold(fd):
            os.close(fd)
            return None
        return os.fdopen(fd, "r+b", buffering=0), path

    def drop(self, digits: str) -> int:
        """Takes the file of a digest away, unless somebody holds it; the bytes that gives back."""
        path = self._directory / digits
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            if not _hold(fd):
                return 0
            path.unlink()
            return os.fstat(fd).st_blocks * BLOCK
        finally:
            os.close(fd)

    def clear(self, older_than_s: float = 0.0) -> int:
        """Takes away what nobody holds and nobody has written to for so long; the bytes that gives back."""
        latest, freed = time.time() - older_than_s, 0
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # it has become a blob
                freed += self.drop(path.name) if path.lstat().st_mtime <= latest else 0
        return freed


def _hold(fd: int) -> bool:
    """Whether the file is ours now, and still the one that has the name."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(fd).st_nlink > 0
