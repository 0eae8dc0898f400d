"""What a registry holds: repositories, which blobs and manifests are in each, tags, who refers to what. SQLite in ROOT/registry.db.

A change is one transaction, synced before it is acknowledged. `writing` also is the lock under which blob files come and go, across
processes: a push, a delete and a collection beside the server see each other whole. Reads go through a connection of their own, on the
loop's thread, and never wait for a writer (WAL).
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.errors import AtollError, SystemFailure, Unavailable

VERSION = 1
BUSY_S = 30.0  # how long a writer waits for another process's transaction

_SCHEMA = """
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE links (
    repository INTEGER NOT NULL, digest TEXT NOT NULL, linked_s INTEGER NOT NULL, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest);
CREATE TABLE documents (digest TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE manifests (
    repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL, pushed_s INTEGER NOT NULL,
    subject TEXT, artifact_type TEXT, descriptor BLOB, PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_digest ON manifests (digest);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject IS NOT NULL;
CREATE TABLE pointers (
    repository INTEGER NOT NULL, manifest TEXT NOT NULL, target TEXT NOT NULL, required INTEGER NOT NULL,
    PRIMARY KEY (repository, manifest, target)
) WITHOUT ROWID;
CREATE INDEX pointers_by_target ON pointers (repository, target);
CREATE TABLE tags (
    repository INTEGER NOT NULL, tag TEXT NOT NULL, manifest TEXT NOT NULL, PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (repository, manifest);
"""


class Database:
    """The connections; the statements stand with the rules that need them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def open(self) -> None:
        """Raises AtollError where a newer Atoll wrote it, Unavailable where it is no database any more."""
        writer = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("PRAGMA synchronous=FULL")
            writer.execute("BEGIN IMMEDIATE")
            version = writer.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise AtollError(f"{self._path} was written by a newer Atoll (layout {version}, this one knows {VERSION}): upgrade")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    writer.execute(statement)
                writer.execute(f"PRAGMA user_version={VERSION}")
            writer.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            writer.close()
            raise Unavailable(f"{self._path} cannot be used: {error}") from error
        except AtollError:
            writer.close()
            raise
        self._writer = writer
        self._reader = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        self._reader.execute("PRAGMA query_only=1")

    def close(self) -> None:
        with self._lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, rolled back where the block raises. Blocks; call it from a thread.

        Raises SystemFailure where the disk is full or failed, Unavailable where another process does not let go of the file.
        """
        with self._lock:
            connection = self._opened(self._writer)
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise self._meaning(error) from error
                raise

    def _meaning(self, error: sqlite3.OperationalError) -> AtollError:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return SystemFailure(f"write {self._path}", errno.ENOSPC)
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return Unavailable(f"{self._path} is held by another process for {BUSY_S:g} s")
        return SystemFailure(f"{self._path}: {error}", errno.EIO)

    @property
    def reader(self) -> sqlite3.Connection:
        """For the loop's thread alone."""
        return self._opened(self._reader)

    def _opened(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise Unavailable("the registry is closed")
        return connection
