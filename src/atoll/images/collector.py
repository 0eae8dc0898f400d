"""Takes back what nobody holds: layers, blobs, half-made directories.

A layer is held by an image, by a lease (a build's cache), or by a container whose image was removed by force; a blob by an image or a
layer. Work in progress (a pull, a build) holds everything: its new layers belong to no image yet. Collection waits until the last such
work is done.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.errors import NotFound
from atoll.images.blobs import Blobs
from atoll.images.catalog import parse_config
from atoll.images.database import Database
from atoll.images.model import Users, sha256
from atoll.images.partial import KEPT_S
from atoll.images.snapshots import Snapshots
from atoll.images.treewalk import remove_tree


class Collector:
    def __init__(self, database: Database, blobs: Blobs, snapshots: Snapshots, scratch: Path, users: Users) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._scratch = scratch
        self._users = users
        self._workers = 0
        self._due = False
        self._sweeping = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While inside, nothing is collected."""
        self._workers += 1
        try:
            yield
        finally:
            self._workers -= 1
            if self._due and not self._workers:
                self.collect()

    def collect(self) -> list[str]:
        """Forgets what is not held; the chain ids of layers that went. Their files lie in scratch until `sweep`."""
        if self._workers:
            self._due = True
            return []
        self._due = False
        used = {user.image_id for user in self._users()}
        for image_id in self._database.hidden_images():
            if image_id not in used:
                self._database.delete_image(image_id)
        gone = self._database.unheld_layers()
        for row in gone:
            self._snapshots.delete(row)
        held = self._database.held_blobs()
        for digest in [digest for digest in self._blobs.all() if digest not in held]:
            self._blobs.delete(digest)
        self._database.forget_sources()
        return [row.chain for row in gone]

    def sweep(self) -> None:
        """Removes the files of forgotten layers and of old downloads. Slow for large trees: run it in a thread, one at a time works."""
        with self._sweeping:
            self._blobs.partials.clear(KEPT_S)
            for path in self._scratch.glob("gone-*"):
                remove_tree(path)

    def recover(self) -> None:
        """After a crash: drops whatever is half made. Only while alone."""
        for image in self._database.images():
            if not self._is_whole(image.id):
                self._database.delete_image(image.id)
        self._snapshots.remove_strays()
        for path in self._scratch.iterdir():
            remove_tree(path)
        self.collect()
        self.sweep()

    def _is_whole(self, image_id: str) -> bool:
        try:
            document = self._blobs.read(image_id)
        except NotFound:
            return False
        return sha256(document) == image_id and len(self._database.layers_of(image_id)) == len(parse_config(document)["rootfs"]["diff_ids"])


class Leases:
    """Holds on layers by owners that are no images, such as a build's cache: {"build-cache/abc": [chain ids]}."""

    def __init__(self, database: Database, snapshots: Snapshots) -> None:
        self._database = database
        self._snapshots = snapshots

    def acquire(self, owner: str, chains: Iterable[str]) -> None:
        """Sets what `owner` holds: these layers and all beneath them. Raises NotFound where one is not here."""
        self._database.set_lease(owner, {layer.chain_id for chain in chains for layer in self._snapshots.stack(chain)})

    def release(self, owner: str) -> None:
        self._database.set_lease(owner, ())

    def all(self) -> dict[str, list[str]]:
        return self._database.leases()


class ContentLock:
    """A shared hold on the content directory: several engines may use it, but only one that is alone may clean it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def open(self) -> bool:
        """True where nobody else has it; the lock is then exclusive until `share`."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            return False
        return True

    def share(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
