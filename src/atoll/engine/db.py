"""The engine's own state on disk: one SQLite file, one row a container.

A row is the container's whole record as JSON, written before and after every act on it, so that a crash between the two is seen at the next
start. WAL with synchronous=NORMAL: a killed daemon loses nothing; a power cut may lose the last instants, when the containers they speak of
are gone as well. A full disk, often a container's doing, must not keep an engine from starting or from writing down an end: some room is
kept for that.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from atoll.errors import SystemFailure, Unavailable

SCHEMA_VERSION = 1
Result = TypeVar("Result")
RESERVE = 1 << 20  # bytes kept free: what containers have filled the disk, their ends can still be written
_DISK_ERRORS = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) WITHOUT ROWID;
"""


class Database:
    def __init__(self, path: Path) -> None:
        """Raises SystemFailure where the disk is full or broken, Unavailable where a newer Atoll wrote it."""
        self._path = path
        self._reserve = path.with_name(f"{path.name}.reserve")
        path.touch(0o600)  # records hold the environments of containers; the journal takes its mode from here
        path.chmod(0o600)
        self._connection = self._with_room(lambda: _open(path))
        self._keep_reserve()

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
        self._with_room(lambda: self._connection.execute(statement, values))
        if not self._has_reserve:
            self._keep_reserve()

    def _with_room(self, work: Callable[[], Result]) -> Result:
        """Does `work`; on a full disk once more, with the room that was kept for it."""
        try:
            return work()
        except sqlite3.OperationalError as error:
            if _disk_error(error) is None:
                raise
        self._has_reserve = False
        self._reserve.unlink(missing_ok=True)
        try:
            return work()
        except sqlite3.OperationalError as error:
            raise SystemFailure(f"write {self._path}", _disk_error(error) or errno.EIO) from error

    def _keep_reserve(self) -> None:
        try:
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            self._has_reserve = False
        else:
            self._has_reserve = True

    def close(self) -> None:
        self._connection.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise Unavailable(
                f"{path} was written by a newer Atoll (schema {version}, not {SCHEMA_VERSION}): upgrade, or use another ATOLL_HOME"
            )
        connection.executescript(_SCHEMA)
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _disk_error(error: sqlite3.OperationalError) -> int | None:
    return _DISK_ERRORS.get(error.sqlite_errorcode & 0xFF)
