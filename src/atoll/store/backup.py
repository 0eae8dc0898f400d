"""Copies of a SQLite store: taken while its owner writes, and put back while nobody does.

A copy is one read of one moment, so it holds every write that was acknowledged before it began and no half of any. After it is put back
revisions go on above all that were ever handed out, and what history there was is closed: clients that saw later states list again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from atoll.errors import Conflict, NotFound, Unavailable
from atoll.store import schema
from atoll.store.lock import OwnerLock

_JUMP = 1_000_000_000  # revisions skipped where the store that is replaced cannot say how far it had come; etcd's --bump-revision advice


def snapshot(store: Path, target: Path) -> None:
    """Copy the store to a new file, which appears whole or not at all. Raises NotFound, Conflict, Unavailable."""
    if not store.exists():
        raise NotFound(f"there is no store at {store}")
    if target.exists():
        raise Conflict(f"{target} exists already: give another name, or remove it")
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with contextlib.closing(schema.connect(store, read_only=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(part.absolute()),))
        part.chmod(0o600)
        _flush(part)
        part.rename(target)
        _flush(target.parent)
    except sqlite3.Error as error:
        raise Unavailable(f"store {store} could not be copied to {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def restore(source: Path, store: Path) -> None:
    """Put a copy in the place of the store. Raises NotFound, InUse where the store has an owner, Unavailable where the copy is no store."""
    if not source.exists():
        raise NotFound(f"there is no snapshot at {source}")
    store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = OwnerLock(store.with_name(store.name + ".lock"))
    part = store.with_name(f".{store.name}.part")
    try:
        shutil.copyfile(source, part)
        with contextlib.closing(schema.connect(part)) as connection:
            schema.prepare(connection, part)
            last = connection.execute(schema.LAST_REVISION).fetchone()[0]
            connection.execute(schema.CLOSE_HISTORY, (max(last, _last(store, last)) + 1,))
            connection.execute("PRAGMA journal_mode = DELETE")  # one file, which a rename can move
        _flush(part)
        for extra in ("-wal", "-shm"):
            store.with_name(store.name + extra).unlink(missing_ok=True)
        part.rename(store)
        _flush(store.parent)
    finally:
        for name in (part.name, f"{part.name}-wal", f"{part.name}-shm"):
            part.with_name(name).unlink(missing_ok=True)
        lock.release()


def _last(store: Path, otherwise: int) -> int:
    """How far a store had come; far beyond `otherwise` where it cannot be read any more."""
    if not store.exists():
        return otherwise + _JUMP
    try:
        with contextlib.closing(schema.connect(store)) as connection:
            return int(connection.execute(schema.LAST_REVISION).fetchone()[0])
    except sqlite3.Error:
        return otherwise + _JUMP


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
