"""One registry's content and the rules it keeps: what enters a repository, what may point to it, what happens when it goes.

Methods that change something block, until it is on disk: call them in a thread. Those that read are quick, and are for the loop's thread.
A blob lies on disk once, whatever number of repositories it is linked into; with its last link the file goes. Deleting a manifest leaves
its blobs, as the next push may want them: `collect` takes them away.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from atoll.errors import AtollError
from atoll.registry.content import Content
from atoll.registry.database import Database
from atoll.registry.errors import Code, Refused
from atoll.registry.manifests import Document, Pointer
from atoll.registry.names import is_digest_reference

log = logging.getLogger("atoll.registry")

_MANIFEST_BY_DIGEST = """
SELECT digest, media_type, body FROM manifests JOIN documents USING (digest) JOIN repositories ON repositories.id = manifests.repository
 WHERE name = ? AND digest = ?
"""
_MANIFEST_BY_TAG = """
SELECT digest, media_type, body FROM tags JOIN repositories ON repositories.id = tags.repository
 JOIN manifests ON manifests.repository = tags.repository AND manifests.digest = tags.manifest JOIN documents USING (digest)
 WHERE name = ? AND tag = ?
"""
_BLOB_SIZE = "SELECT size FROM blobs JOIN links USING (digest) WHERE repository = ? AND digest = ?"
_MANIFEST_SIZE = "SELECT size FROM manifests WHERE repository = ? AND digest = ?"

LIST_MAX = 10_000  # tags or repositories in one answer; a Link leads on
REFERRERS_BYTES = 4 << 20  # of descriptors in one answer: they carry annotations of any length


class Blob(NamedTuple):
    path: Path
    size: int


class Manifest(NamedTuple):
    digest: str
    media_type: str
    body: bytes


class Page(NamedTuple):
    """Some of a list; `more` tells that it goes on after the last."""

    items: list[str]
    more: bool


class Referrers(NamedTuple):
    descriptors: list[bytes]
    last: str | None  # the digest to go on after, where there is more


class Store:
    def __init__(self, root: Path, clock: Callable[[], float] = time.time, *, beside: Path | None = None) -> None:
        self.content = Content(root, beside)
        self.database = Database(root / "registry.db")
        self._root = root
        self._clock = clock

    def open(self) -> None:
        """Raises what Database.open does."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.content.create()
        self.database.open()

    def close(self) -> None:
        self.database.close()

    # blobs ---------------------------------------------------------------------------------------------------------------------------
    def blob(self, repository: str, digest: str) -> Blob:
        """Raises Refused BLOB_UNKNOWN, also where the disk has lost what the database knows: a push then mends it."""
        row = self.database.reader.execute(
            "SELECT size FROM blobs JOIN links USING (digest) JOIN repositories ON repositories.id = links.repository"
            " WHERE name = ? AND digest = ?",
            (repository, digest),
        ).fetchone()
        if row is None:
            raise _blob_unknown(digest)
        if self.content.size(digest) != row[0]:
            log.error("blob %s is damaged or missing on disk; push it again, or run `atoll registry fsck`", digest)
            raise _blob_unknown(digest)
        return Blob(self.content.path(digest), row[0])

    def add_blob(self, repository: str, upload: Path, digest: str, size: int) -> None:
        """Takes a synced file, of this digest and size, into the repository."""
        try:
            with self.database.writing() as connection:
                self.content.adopt(upload, digest)
                connection.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?)", (digest, size))
                self._link(connection, repository, digest)
        except AtollError:  # the disk is full: at least the file goes
            self.sweep_files([digest])
            raise

    def mount_blob(self, repository: str, digest: str, source: str | None) -> bool:
        """Links a blob of repository SOURCE, or of any; False where it is not there."""
        with self.database.writing() as connection:
            row = connection.execute(
                "SELECT size FROM blobs JOIN links USING (digest) JOIN repositories ON repositories.id = links.repository"
                " WHERE digest = ? AND name = coalesce(?, name)",
                (digest, source),
            ).fetchone()
            if row is None or self.content.size(digest) != row[0]:
                return False
            self._link(connection, repository, digest)
            return True

    def delete_blob(self, repository: str, digest: str) -> None:
        """Raises Refused BLOB_UNKNOWN."""
        with self.database.writing() as connection:
            gone = connection.execute("DELETE FROM links WHERE repository = ? AND digest = ?", (_id(connection, repository), digest))
            if not gone.rowcount:
                raise _blob_unknown(digest)
        self.drop_unlinked([digest])

    def drop_unlinked(self, digests: Sequence[str]) -> list[str]:
        """Removes, of these blobs, those that no repository has; returns them.

        First the rows, then the files, under one lock each: a crash between leaves files without rows, which the next collection sweeps,
        never rows without files; and a push that brings the same blob between keeps it.
        """
        with self.database.writing() as connection:
            gone = [
                digest
                for digest in digests
                if connection.execute(
                    "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM links WHERE digest = ?1)", (digest,)
                ).rowcount
            ]
        self.sweep_files(gone)
        return gone

    def sweep_files(self, digests: Sequence[str]) -> None:
        """Deletes the files, among these, that the database does not know."""
        with self.database.writing() as connection:
            for digest in digests:
                if not connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone():
                    self.content.delete(digest)

    def _link(self, connection: sqlite3.Connection, repository: str, digest: str) -> None:
        now = int(self._clock())
        connection.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (_make(connection, repository), digest, now))

    # manifests -----------------------------------------------------------------------------------------------------------------------
    def manifest(self, repository: str, reference: str) -> Manifest:
        """By tag or digest. Raises Refused MANIFEST_UNKNOWN."""
        statement = _MANIFEST_BY_DIGEST if is_digest_reference(reference) else _MANIFEST_BY_TAG
        row = self.database.reader.execute(statement, (repository, reference)).fetchone()
        if row is None:
            raise _manifest_unknown(reference)
        return Manifest(*row)

    def put_manifest(self, repository: str, digest: str, body: bytes, document: Document, tags: Sequence[str]) -> None:
        """Raises Refused MANIFEST_BLOB_UNKNOWN naming what the repository lacks, SIZE_INVALID where a descriptor's size is wrong."""
        with self.database.writing() as connection:
            home = _make(connection, repository)
            for pointer in document.pointers:
                _check(connection, home, pointer)
            connection.execute("INSERT OR IGNORE INTO documents VALUES (?, ?)", (digest, body))
            descriptor = document.referrer(digest, len(body)) if document.subject else None
            connection.execute(
                "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(home, digest, document.media_type, len(body), int(self._clock())),
                    *(document.subject, document.artifact_type, descriptor),
                ),
            )
            rows = ((home, digest, pointer.digest, pointer.required) for pointer in document.pointers)
            connection.executemany("INSERT OR REPLACE INTO pointers VALUES (?, ?, ?, ?)", rows)
            connection.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", ((home, tag, digest) for tag in tags))

    def delete_manifest(self, repository: str, digest: str) -> None:
        """With its tags. Raises Refused MANIFEST_UNKNOWN."""
        with self.database.writing() as connection:
            if not forget_manifest(connection, _id(connection, repository), digest):
                raise _manifest_unknown(digest)

    def delete_tag(self, repository: str, tag: str) -> None:
        """Raises Refused MANIFEST_UNKNOWN."""
        with self.database.writing() as connection:
            if not connection.execute("DELETE FROM tags WHERE repository = ? AND tag = ?", (_id(connection, repository), tag)).rowcount:
                raise _manifest_unknown(tag)

    # discovery -----------------------------------------------------------------------------------------------------------------------
    def tags(self, repository: str, last: str, count: int) -> Page:
        """The tags after LAST in the order of their bytes. Raises Refused NAME_UNKNOWN."""
        reader = self.database.reader
        home = _id(reader, repository)
        if home is None:
            raise Refused(Code.NAME_UNKNOWN, f"there is no repository {repository}", detail={"name": repository})
        rows = reader.execute("SELECT tag FROM tags WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?", (home, last, count + 1))
        return _page(rows, count)

    def repositories(self, last: str, count: int) -> Page:
        """Those that hold a manifest."""
        statement = (
            "SELECT name FROM repositories WHERE name > ? AND EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id)"
            " ORDER BY name LIMIT ?"
        )
        return _page(self.database.reader.execute(statement, (last, count + 1)), count)

    def referrers(self, repository: str, subject: str, artifact_type: str | None, last: str) -> Referrers:
        """Descriptors, as JSON, of the manifests about SUBJECT; none for what nobody knows."""
        reader = self.database.reader
        rows = reader.execute(
            "SELECT digest, descriptor FROM manifests WHERE repository = ? AND subject = ? AND digest > ?"
            " AND artifact_type = coalesce(?, artifact_type) ORDER BY digest",
            (_id(reader, repository), subject, last, artifact_type),
        )
        found: list[bytes] = []
        total = 0
        at = None
        for digest, descriptor in rows:
            total += len(descriptor)
            if found and total > REFERRERS_BYTES:
                return Referrers(found, at)
            found.append(descriptor)
            at = digest
        return Referrers(found, None)


def forget_manifest(connection: sqlite3.Connection, home: int | None, digest: str) -> bool:
    """Removes the rows of a manifest in one repository; False where there is none."""
    if not connection.execute("DELETE FROM manifests WHERE repository = ? AND digest = ?", (home, digest)).rowcount:
        return False
    connection.execute("DELETE FROM pointers WHERE repository = ? AND manifest = ?", (home, digest))
    connection.execute("DELETE FROM tags WHERE repository = ? AND manifest = ?", (home, digest))
    connection.execute("DELETE FROM documents WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM manifests WHERE digest = ?1)", (digest,))
    return True


def _check(connection: sqlite3.Connection, home: int, pointer: Pointer) -> None:
    if not pointer.required:
        return
    row = connection.execute(_MANIFEST_SIZE if pointer.is_manifest else _BLOB_SIZE, (home, pointer.digest)).fetchone()
    if row is None:
        kind = "manifest" if pointer.is_manifest else "blob"
        message = f"the manifest refers to {kind} {pointer.digest}, which the repository does not have"
        raise Refused(Code.MANIFEST_BLOB_UNKNOWN, message, detail={"digest": pointer.digest})
    if row[0] != pointer.size:
        message = f"the manifest gives {pointer.digest} {pointer.size} bytes where it has {row[0]}"
        raise Refused(Code.SIZE_INVALID, message, detail={"digest": pointer.digest})


def _id(connection: sqlite3.Connection, repository: str) -> int | None:
    row = connection.execute("SELECT id FROM repositories WHERE name = ?", (repository,)).fetchone()
    return int(row[0]) if row else None


def _make(connection: sqlite3.Connection, repository: str) -> int:
    connection.execute("INSERT OR IGNORE INTO repositories (name) VALUES (?)", (repository,))
    home = _id(connection, repository)
    assert home is not None
    return home


def _page(rows: sqlite3.Cursor, count: int) -> Page:
    items = [row[0] for row in rows]
    return Page(items[:count], len(items) > count)


def _blob_unknown(digest: str) -> Refused:
    return Refused(Code.BLOB_UNKNOWN, f"blob {digest} is not in the repository", detail={"digest": digest})


def _manifest_unknown(reference: str) -> Refused:
    return Refused(Code.MANIFEST_UNKNOWN, f"manifest {reference} is not in the repository", detail={"reference": reference})
