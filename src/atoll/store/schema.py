"""The store's tables in SQLite, and every statement that runs over them.

All versions of all keys lie in one table, as in etcd: a revision is a row, the newest row of a key is its value, a row without a value is
a delete. One insert is a write, a watch is resumed by a range of rows, and a list at an old revision needs no second structure.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from atoll.errors import SystemFailure, Unavailable

FORMAT = 1
_BUSY_S = 5.0

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

INSERT = "INSERT INTO entries (revision, key, previous, value) VALUES (?, ?, ?, ?)"
# With max() SQLite takes the bare columns from the row that holds the maximum (lang_select.html, "bare columns").
SCAN = """
SELECT key, value, revision FROM (
  SELECT key, value, max(revision) AS revision FROM entries WHERE key >= ? AND key < ? AND revision <= ? GROUP BY key
) WHERE value IS NOT NULL ORDER BY key
"""
INDEX = "SELECT key, revision FROM (SELECT key, value, max(revision) AS revision FROM entries GROUP BY key) WHERE value IS NOT NULL"
NEWEST = "SELECT revision, value IS NULL FROM entries WHERE key = ? ORDER BY revision DESC LIMIT 1"
HISTORY = """
SELECT e.revision, e.key, e.value, p.value, e.previous
FROM entries e LEFT JOIN entries p ON p.revision = e.previous AND e.previous > 0
WHERE e.revision > ? AND e.key >= ? AND e.key < ? ORDER BY e.revision
"""
LAST_REVISION = "SELECT max(coalesce((SELECT max(revision) FROM entries), 0), (SELECT value FROM settings WHERE name = 'compacted'))"
COMPACTED = "SELECT value FROM settings WHERE name = 'compacted'"
# What a row up to the new horizon replaced cannot be seen any more; nor can a delete that lies before it.
COMPACT_REPLACED = (
    "DELETE FROM entries WHERE revision IN (SELECT previous FROM entries WHERE revision > ? AND revision <= ? AND previous > 0)"
)
COMPACT_DELETES = "DELETE FROM entries WHERE revision > ? AND revision <= ? AND value IS NULL"
COMPACT_MARK = "UPDATE settings SET value = ? WHERE name = 'compacted'"


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
