"""Content by digest: content/blobs/sha256/<hex>.

A blob is written to a temporary file, hashed on the way, and gets its name only when digest and size are what was promised: a name that
exists holds what it says. Nothing here syncs: the store flushes what is new before it acknowledges an image (durability.py), and at its
opening deletes what no row speaks of, which is all that a power failure can have left half written.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from atoll.errors import DigestMismatch, LimitExceeded, NotFound, Unavailable
from atoll.images.model import Descriptor, Digest
from atoll.images.partial import WORTH, Partials
from atoll.images.reference import is_digest
from atoll.images.sharing import link

DOCUMENT_MAX = 8 << 20  # bytes of a config or manifest; registries refuse manifests above 4 MiB
READ_SIZE = 1 << 18


class Blobs:
    """The blobs of one content directory; `scratch` is on the same file system. `beside`: a directory like `root` that has some as well."""

    def __init__(self, root: Path, scratch: Path, beside: Path | None = None) -> None:
        self._root = root / "sha256"
        self._scratch = scratch
        self._beside = beside
        self._unsynced: set[str] = set()
        self.partials = Partials(scratch.with_name("partial"))

    @property
    def directory(self) -> Path:
        return self._root

    def unsynced(self) -> frozenset[str]:
        """What was committed here and may not be on disk."""
        return frozenset(self._unsynced)

    def synced(self, digests: Iterable[str]) -> None:
        self._unsynced.difference_update(digests)

    def create(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.partials.create()

    def path(self, digest: str) -> Path:
        """Where `digest` lies or would lie. Raises NotFound for what is no sha256 digest: it must not become a path."""
        if not is_digest(digest):
            raise NotFound(f"no such blob: {digest}")
        return self._root / digest.removeprefix("sha256:")

    def size(self, digest: str) -> int | None:
        """Bytes of the blob, None where it is not here."""
        try:
            return self.path(digest).stat().st_size
        except (FileNotFoundError, NotFound):
            return None

    def borrow(self, blob: Descriptor) -> bool:
        """Whether the blob is here, if need be by sharing the file of the store beside this one, which verified it."""
        if self.size(blob.digest) == blob.size:
            return True
        if self._beside is None or not link(self._beside, blob.digest, blob.size, self.path(blob.digest)):
            return False
        self._unsynced.add(blob.digest)
        return True

    def read(self, digest: str) -> bytes:
        """A whole document. Raises NotFound, LimitExceeded."""
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(DOCUMENT_MAX + 1)
        except FileNotFoundError:
            raise NotFound(f"no such blob: {digest}") from None
        if len(data) > DOCUMENT_MAX:
            raise LimitExceeded(f"blob {digest} is larger than a document may be ({DOCUMENT_MAX >> 20} MiB)")
        return data

    def chunks(self, digest: str) -> Iterator[bytes]:
        """The blob's bytes, READ_SIZE at a time. Raises NotFound."""
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"no such blob: {digest}") from None
        with file:
            while data := file.read(READ_SIZE):
                yield data

    def add(self, data: bytes) -> Digest:
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def writer(self) -> BlobWriter:
        return BlobWriter(self)

    def downloader(self, digest: str) -> BlobWriter:
        """A writer whose bytes outlive it where it does not commit, and that has those an earlier one left: see `take_up`."""
        place = self.partials.open(self.path(digest).name)
        return BlobWriter(self, place, kept=place is not None)

    def discard_download(self, digest: str) -> None:
        """Nobody is to go on with what came of it."""
        self.partials.drop(self.path(digest).name)

    def delete(self, digest: str) -> int:
        """Bytes given back; 0 where it was not here."""
        size = self.size(digest)
        self.path(digest).unlink(missing_ok=True)
        return size or 0

    def all(self) -> Iterator[Digest]:
        for name in os.listdir(self._root):
            yield Digest(f"sha256:{name}")

    def _temporary(self) -> tuple[BinaryIO, Path]:
        fd, name = tempfile.mkstemp(prefix="blob-", dir=self._scratch)
        return os.fdopen(fd, "r+b", buffering=0), Path(name)


class BlobWriter:
    """A blob on its way in. Leaving the `with` without commit throws it away, but for a `kept` one that is worth going on with.

    One thread writes, another may read what has arrived: `follow`.
    """

    def __init__(self, blobs: Blobs, place: tuple[BinaryIO, Path] | None = None, *, kept: bool = False) -> None:
        self._blobs = blobs
        self._kept = kept
        self._file, self._path = place or blobs._temporary()  # noqa: SLF001 - one class in two halves
        self._name = self._path
        self._hash = hashlib.sha256()
        self._changed = threading.Condition()
        self._committed = self._abandoned = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abandon()
        if not self._committed and not (self._kept and self.size >= WORTH):
            self._path.unlink(missing_ok=True)
        self._file.close()  # and lets go of it: nobody may find it under its name before

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        with self._changed:
            self.size += len(data)
            self._changed.notify_all()

    def take_up(self, limit: int) -> int:
        """Goes on behind what an earlier download left, if that is no more than `limit` bytes: how many there are. Blocks."""
        if os.fstat(self._file.fileno()).st_size > limit:
            self.restart()
        while data := self._file.read(READ_SIZE):
            self._hash.update(data)
            self.size += len(data)
        return self.size

    def restart(self) -> None:
        """Forgets what was written: the peer began again from the first byte."""
        with self._changed:
            self._file.seek(0)
            self._file.truncate()
            self._hash = hashlib.sha256()
            self.size = 0

    def commit(self, *, digest: str | None = None, size: int | None = None) -> Digest:
        """Makes the blob visible and gives its digest. Raises DigestMismatch where `digest` or `size` say otherwise."""
        actual = Digest(f"sha256:{self._hash.hexdigest()}")
        if size is not None and size != self.size:
            raise DigestMismatch(f"content of {digest or actual} has {self.size} bytes where its descriptor says {size}: refused")
        if digest is not None and digest != actual:
            raise DigestMismatch(f"content of {digest} is in truth {actual}: refused")
        with self._changed:
            self._path.chmod(0o600)
            self._path.rename(self._blobs.path(actual))
            self._name = self._blobs.path(actual)
            self._blobs._unsynced.add(actual)  # noqa: SLF001
            self._committed = True
            self._changed.notify_all()
        return actual

    def abandon(self) -> None:
        """Ends those who follow, unless all has come."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def follow(self) -> Iterator[bytes]:
        """The blob's bytes as they arrive, ending only once it was committed: what is seen before is not verified yet. Blocks.

        Raises Unavailable where the writer gives up.
        """
        with self._changed:
            file = self._name.open("rb", buffering=0)
        with file:
            at = 0
            while True:
                with self._changed:
                    # After a restart the same bytes are awaited again; that they are the same is the digest's to tell.
                    self._changed.wait_for(lambda seen=at: self.size > seen or self._committed or self._abandoned)  # type: ignore[misc]
                    arrived = self.size
                    if self._abandoned and not self._committed:
                        raise Unavailable("the blob that was read from did not arrive")
                if arrived <= at:
                    return
                while at < arrived and (data := file.read(min(READ_SIZE, arrived - at))):
                    at += len(data)
                    yield data
