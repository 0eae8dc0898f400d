"""The store's tables in SQLite, and every statement that runs over them.

All versions of all keys lie in one table, as in etcd: a revision is a row, the newest row of a key is its value, a row without a value is
a delete. One insert is a write, a watch is resumed by a range of rows, and a list at an old revision needs no second structure.
"""

from __future__ import annotations

import contextlib
import sqlite3
from functools import cache
from pathlib import Path

from atoll.errors import SystemFailure, Unavailable

FORMAT = 1
_BUSY_S = 5.0
_EACH_SIZE_TO = 16  # groups up to here are written as they are, larger ones as a power of two: so few statements need to be prepared
_GROUP_MAX = 256  # writes a commit: bounds how long one fsync holds up the next

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
  revision INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  previous INTEGER NOT NULL,
  value BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_key ON entries (key, revision);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

_INSERT = "INSERT INTO entries (revision, key, previous, value) VALUES "
# With max() SQLite takes the bare columns from the row that holds the maximum (lang_select.html, "bare columns").
SCAN = """
SELECT key, value, revision FROM (
  SELECT key, value, max(revision) AS revision FROM entries WHERE key >= ? AND key < ? AND revision <= ? GROUP BY key
) WHERE value IS NOT NULL ORDER BY key
"""
INDEX = "SELECT key, revision FROM (SELECT key, value, max(revision) AS revision FROM entries GROUP BY key) WHERE value IS NOT NULL"
HISTORY = """
SELECT e.revision, e.key, e.value, p.value, e.previous
FROM entries e LEFT JOIN entries p ON p.revision = e.previous AND e.previous > 0
WHERE e.revision > ? AND e.key >= ? AND e.key < ? ORDER BY e.revision
"""
LAST_REVISION = "SELECT max(coalesce((SELECT max(revision) FROM entries), 0), (SELECT value FROM settings WHERE name = 'compacted'))"
CLOSE_HISTORY = "UPDATE settings SET value = ? WHERE name = 'compacted'"
COMPACTED = "SELECT value FROM settings WHERE name = 'compacted'"
# What a row up to the new horizon replaced cannot be seen any more; nor can a delete that lies before it.
_COMPACT = (
    ("DELETE FROM entries WHERE revision IN (SELECT previous FROM entries WHERE revision > :start AND revision <= :end AND previous > 0)"),
    ("DELETE FROM entries WHERE revision > :start AND revision <= :end AND value IS NULL"),
    ("UPDATE settings SET value = :end WHERE name = 'compacted'"),
)


def group_size(count: int) -> int:
    """How many of so many writes go into one statement."""
    return count if count <= _EACH_SIZE_TO else min(1 << count.bit_length() - 1, _GROUP_MAX)


@cache
def insert(rows: int) -> str:
    """One statement for so many rows: outside of a transaction it is one, with a single call into SQLite."""
    return _INSERT + ", ".join(["(?, ?, ?, ?)"] * rows)


def compact(connection: sqlite3.Connection, start: int, end: int) -> None:
    """Forget what was replaced or deleted in these revisions, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _COMPACT:
            connection.execute(statement, {"start": start, "end": end})
        connection.execute("COMMIT")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables where they are missing, check them where they are there. Raises Unavailable for a damaged or foreign file."""
    path.chmod(0o600)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise Unavailable(f"store {path} is damaged ({verdict}): restore it from a backup")
        connection.executescript(_TABLES)
        connection.execute("INSERT OR IGNORE INTO settings VALUES ('format', ?), ('compacted', 0)", (FORMAT,))
        found = connection.execute("SELECT value FROM settings WHERE name = 'format'").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise SystemFailure(f"open store {path} ({error})", 5) from error
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"store {path} is damaged ({error}): restore it from a backup") from error
    if found != FORMAT:
        raise Unavailable(f"store {path} has format {found}, this release reads {FORMAT}: use the release that wrote it")


def prefix_end(prefix: str) -> str:
    """The first key after all that begin with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
