"""Blobs as files by their digest, and uploads on their way to be one: ROOT/blobs/<algorithm>/<hex>, ROOT/uploads/<id>.

An upload becomes a blob by a rename, after it was hashed and synced: a name that exists holds what it says, also after a power failure.
Which blobs there are is the database's to say; a file it does not know is what a crash left, and is swept by `collect`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from atoll.images.sharing import link
from atoll.registry.names import ALGORITHMS


class Content:
    """The files below one registry's root, which is one file system. `beside`: blobs of another store, laid out like ours."""

    def __init__(self, root: Path, beside: Path | None = None) -> None:
        self._blobs = root / "blobs"
        self._beside = beside
        self.uploads = root / "uploads"

    def create(self) -> None:
        self.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
        for algorithm in ALGORITHMS:
            (self._blobs / algorithm).mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: str) -> Path:
        """Where a checked digest lies or would lie."""
        algorithm, _, digits = digest.partition(":")
        return self._blobs / algorithm / digits

    def size(self, digest: str) -> int | None:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def adopt(self, upload: Path, digest: str) -> None:
        """Makes a synced upload the blob, or shares the file of the store beside us; blocks until its name is on disk."""
        target = self.path(digest)
        if self._beside is None or target.exists() or not link(self._beside, digest, upload.stat().st_size, target):
            upload.rename(target)  # also over a damaged file of that name
        else:
            upload.unlink()
            sync(target)  # the other store need not have done so yet
        sync(target.parent)

    def delete(self, digest: str) -> None:
        """Whoever reads the blob at this moment reads on to its end."""
        self.path(digest).unlink(missing_ok=True)

    def all(self) -> Iterator[str]:
        for algorithm in ALGORITHMS:
            for name in os.listdir(self._blobs / algorithm):
                yield f"{algorithm}:{name}"


def sync(path: Path) -> None:
    """A file's content, or a directory's names, to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
