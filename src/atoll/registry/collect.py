"""Garbage collection and checking, beside a running server or without one.

What goes: blobs no manifest of their repository refers to, uploads nobody finishes, files a crash left, and on request manifests without a
tag. A push uploads its blobs before the manifest that refers to them, so what is younger than the grace period stays. Everything happens in
short transactions, so that pushes go on meanwhile.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from atoll.errors import NotFound
from atoll.registry.content import Content
from atoll.registry.names import algorithm_of
from atoll.registry.store import Store, forget_manifest
from atoll.registry.uploads import EXPIRY_S, READ_SIZE, delete_stale

GRACE_S = 3600.0  # longer than any push takes from its first blob to its manifest
SLICE = 200  # rows or files a transaction

_UNTAGGED = """
SELECT repository, digest FROM manifests AS one WHERE pushed_s <= ?
 AND NOT EXISTS (SELECT 1 FROM tags WHERE repository = one.repository AND manifest = one.digest)
 AND NOT EXISTS (SELECT 1 FROM pointers WHERE repository = one.repository AND target = one.digest)
 AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = one.repository AND digest = one.subject)
"""
_UNREFERRED = """
SELECT repository, digest FROM links WHERE linked_s <= ?
 AND NOT EXISTS (SELECT 1 FROM pointers WHERE repository = links.repository AND target = links.digest)
"""
_EMPTY = """
DELETE FROM repositories WHERE NOT EXISTS (SELECT 1 FROM links WHERE repository = repositories.id)
 AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = repositories.id)
"""


@dataclass(slots=True)
class Collected:
    """What went. `size`: bytes given back."""

    manifests: int = 0
    links: int = 0
    blobs: int = 0
    size: int = 0
    uploads: int = 0
    strays: list[str] = field(default_factory=list)


def collect(root: Path, *, grace_s: float = GRACE_S, upload_expiry_s: float = EXPIRY_S, untagged: bool = False) -> Collected:
    """Blocks. Raises NotFound where ROOT holds no registry."""
    store = opened(root)
    try:
        now = time.time()
        done = Collected()
        if untagged:
            while count := _forget_untagged(store, now - grace_s):
                done.manifests += count
        _drop_links(store, now - grace_s, done)
        _sweep(store, done)
        done.uploads = delete_stale(store.content.uploads, now - upload_expiry_s, set())
        with store.database.writing() as connection:
            connection.execute(_EMPTY)
        return done
    finally:
        store.close()


def opened(root: Path) -> Store:
    """The store of a registry that is there."""
    if not (root / "registry.db").is_file():
        raise NotFound(f"{root} holds no registry")
    store = Store(root)
    store.open()
    return store


def _forget_untagged(store: Store, before: float) -> int:
    """One round: an index that goes leaves its manifests to the next."""
    with store.database.writing() as connection:
        rows = connection.execute(_UNTAGGED + f" LIMIT {SLICE}", (before,)).fetchall()
        return sum(forget_manifest(connection, home, digest) for home, digest in rows)


def _drop_links(store: Store, before: float, done: Collected) -> None:
    while True:
        with store.database.writing() as connection:
            rows = connection.execute(_UNREFERRED + f" LIMIT {SLICE}", (before,)).fetchall()
            connection.executemany("DELETE FROM links WHERE repository = ? AND digest = ?", rows)
        if not rows:
            return
        done.links += len(rows)
        digests = sorted({digest for _, digest in rows})
        sizes = {digest: store.content.size(digest) or 0 for digest in digests}
        gone = store.drop_unlinked(digests)
        done.blobs += len(gone)
        done.size += sum(sizes[digest] for digest in gone)


def _sweep(store: Store, done: Collected) -> None:
    """Files without a row. Each is looked at again under the lock: an upload may have become it just now."""
    with store.database.writing() as connection:
        known = {row[0] for row in connection.execute("SELECT digest FROM blobs")}
    strays = [digest for digest in store.content.all() if digest not in known]
    for at in range(0, len(strays), SLICE):
        some = strays[at : at + SLICE]
        sizes = {digest: store.content.size(digest) or 0 for digest in some}
        store.sweep_files(some)
        gone = [digest for digest in some if store.content.size(digest) is None]
        done.strays += gone
        done.size += sum(sizes[digest] for digest in gone)


# fsck --------------------------------------------------------------------------------------------------------------------------------
def check(root: Path) -> list[str]:
    """Every fault of the registry at ROOT, in words; reads all of it. Blocks. Raises NotFound."""
    store = opened(root)
    try:
        with store.database.writing() as connection:  # a moment's view; content is hashed outside
            blobs = connection.execute("SELECT digest, size FROM blobs ORDER BY digest").fetchall()
            faults = list(_broken_rows(connection))
        broken = {digest: fault for digest, size in blobs if (fault := _broken_blob(store.content, digest, size))}
        with store.database.writing() as connection:  # a server beside us may have deleted some meanwhile
            known = {row[0] for row in connection.execute("SELECT digest FROM blobs")}
        return faults + [fault for digest, fault in broken.items() if digest in known]
    finally:
        store.close()


def _broken_rows(connection: sqlite3.Connection) -> Iterator[str]:
    for (fault,) in connection.execute("PRAGMA integrity_check"):
        if fault != "ok":
            yield f"registry.db: {fault}"
    for digest, body in connection.execute("SELECT digest, body FROM documents"):
        if hashlib.new(algorithm_of(digest), body).hexdigest() != digest.partition(":")[2]:
            yield f"manifest {digest} is not what its digest says"
    for name, tag in connection.execute(
        "SELECT name, tag FROM tags JOIN repositories ON id = repository"
        " WHERE NOT EXISTS (SELECT 1 FROM manifests WHERE repository = tags.repository AND digest = manifest)"
    ):
        yield f"{name}:{tag} points to no manifest"
    for name, manifest, target in connection.execute(
        "SELECT name, manifest, target FROM pointers JOIN repositories ON id = repository WHERE required"
        " AND NOT EXISTS (SELECT 1 FROM links WHERE repository = pointers.repository AND digest = target)"
        " AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = pointers.repository AND digest = target)"
    ):
        yield f"{name}@{manifest} refers to {target}, which was deleted"
    for (digest,) in connection.execute("SELECT DISTINCT digest FROM links WHERE digest NOT IN (SELECT digest FROM blobs)"):
        yield f"blob {digest} is linked, but unknown"


def _broken_blob(content: Content, digest: str, size: int) -> str | None:
    state = hashlib.new(algorithm_of(digest))
    length = 0
    try:
        with content.path(digest).open("rb", buffering=0) as file:
            while data := file.read(READ_SIZE):
                state.update(data)
                length += len(data)
    except FileNotFoundError:
        return f"blob {digest} is missing on disk"
    if length != size:
        return f"blob {digest} has {length} bytes on disk where it had {size}"
    if state.hexdigest() != digest.partition(":")[2]:
        return f"blob {digest} is not what its digest says"
    return None
