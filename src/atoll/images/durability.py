"""What is acknowledged is on disk, and no more is waited for than that takes.

A layer whose packed blob is kept can be unpacked again, so only the blob is flushed for it, one fsync a file; the unpacked tree goes to
disk in the kernel's own time. Until a syncfs has covered the tree its row carries the boot it was written in: `restore` finds it after a
power failure and unpacks it anew. A layer made here has no blob: its own files are flushed where they are few, else by one syncfs, which
writes the whole file system, other programs' data included, and is why it is not what everything waits for.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from atoll.errors import AtollError
from atoll.images.blobs import Blobs
from atoll.images.database import Database, LayerRow
from atoll.images.model import Descriptor
from atoll.images.snapshots import Snapshots
from atoll.kernel.openat2 import syncfs

FEW: Final = 64  # files; an fsync takes some 0.25 ms
LATER_S: Final = 60.0  # by then the kernel has written most of what is dirty by itself (vm.dirty_expire_centisecs: 30 s)


class Durability:
    def __init__(self, root: Path, database: Database, blobs: Blobs, snapshots: Snapshots) -> None:
        self._root = root
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._closing = threading.Event()
        self._timer: threading.Thread | None = None

    def settle(self) -> None:
        """Returns when all content made before would survive a power failure. Blocks."""
        blobs = self._blobs.unsynced()
        rows = self._database.unsynced_layers()
        bare = [row for row in rows if self._blob_of(row) is None]
        paths = list(islice(self._needed(blobs, bare), FEW + 1))
        if len(paths) > FEW:
            self._sync_all(rows)
        else:
            for path in paths:
                _fsync(path)
            self._database.mark_synced(row.chain for row in bare)
            if len(bare) < len(rows):
                self._later()
        self._blobs.synced(blobs)

    def restore(self) -> None:
        """After a crash: unpacks again what a power failure may have spoilt, drops what cannot be. Only while alone. Blocks."""
        lost = self._database.lost_layers()
        for row in lost:
            self._snapshots.delete(row)
        waiting = {row.chain: row for row in lost}
        while ready := [row for row in waiting.values() if row.parent not in waiting]:
            for row in ready:
                del waiting[row.chain]
                with suppress(AtollError):  # its parent is gone, or the blob is spoilt as well: the layer stays dropped
                    self._unpack_again(row)
        if self._database.unsynced_layers():
            self._later()

    def close(self) -> None:
        self._closing.set()
        if self._timer is not None:
            self._timer.join(timeout=1)

    def _unpack_again(self, row: LayerRow) -> None:
        blob = self._blob_of(row)
        if blob is not None:
            self._snapshots.unpack_blob_now(self._blobs.chunks(blob.digest), row.parent, row.diff)

    def _blob_of(self, row: LayerRow) -> Descriptor | None:
        if row.ours:
            return None
        return next((blob for blob in self._database.layer_blobs(row.diff) if self._blobs.size(blob.digest) is not None), None)

    def _needed(self, blobs: Iterable[str], layers: Iterable[LayerRow]) -> Iterator[Path]:
        """What an fsync has to be called for, names after what they name."""
        for digest in blobs:
            yield self._blobs.path(digest)
        for row in layers:
            yield from _files(self._snapshots.layer_of(row).directory)
        yield self._blobs.directory
        yield self._snapshots.directory

    def _sync_all(self, rows: Iterable[LayerRow]) -> None:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        self._database.mark_synced(row.chain for row in rows)

    def _later(self) -> None:
        """Has the rest covered when nobody waits, so that an orderly reboot finds nothing to unpack again."""
        if self._timer is None or not self._timer.is_alive():
            self._timer = threading.Thread(target=self._cover, name="content flush", daemon=True)
            self._timer.start()

    def _cover(self) -> None:
        if not self._closing.wait(LATER_S):
            with suppress(AtollError):  # the store was closed meanwhile: the next one that opens it goes on
                self._sync_all(self._database.unsynced_layers())


def _files(top: Path) -> Iterator[Path]:
    """The regular files and directories of a tree, children before parents."""
    with os.scandir(top) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from _files(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)
    yield top


def _fsync(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # collected meanwhile: nothing speaks of it any more
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
