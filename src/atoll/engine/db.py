"""The engine's own state on disk: one SQLite file, one row a container.

A row is the container's whole record as JSON, written before and after every act on it, so that a crash between the two is seen at the next
start. WAL with synchronous=NORMAL: a killed daemon loses nothing; a power cut may lose the last instants, when the containers they speak of
are gone as well.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from atoll.errors import SystemFailure, Unavailable

SCHEMA_VERSION = 1
_DISK_ERRORS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) WITHOUT ROWID;
"""


class Database:
    def __init__(self, path: Path) -> None:
        path.touch(0o600)  # records hold the environments of containers; the journal takes its mode from here
        path.chmod(0o600)
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # nobody else is to open it; no locks and no shared memory for each row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._connection.close()
            raise Unavailable(
                f"{path} was written by a newer Atoll (schema {version}, not {SCHEMA_VERSION}): upgrade, or use another ATOLL_HOME"
            )
        self._connection.executescript(_SCHEMA)
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def containers(self) -> Iterator[bytes]:
        for (record,) in self._connection.execute("SELECT record FROM containers"):
            yield record

    def put_container(self, container_id: str, name: str, record: bytes) -> None:
        """Raises SystemFailure where the disk is full or broken."""
        self._execute(
            "INSERT INTO containers VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
            (container_id, name, record),
        )

    def delete_container(self, container_id: str) -> None:
        """Raises SystemFailure where the disk is full or broken."""
        self._execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def _execute(self, statement: str, values: tuple[str | bytes, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            number = _DISK_ERRORS.get(error.sqlite_errorcode & 0xFF)
            if number is None:
                raise
            raise SystemFailure(f"write {self._path}", number) from error

    def close(self) -> None:
        self._connection.close()
