"""What is known about content: images, names, layers, and who holds what. SQLite in content/images.db.

A row is the last step of every change: bytes first, then the row, so that whatever a crash leaves without a row is rubbish to delete.
Layers carry the boot they were written in until they are known to be on disk (durability.py). Statements run under one lock, since layers
are committed from threads.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from atoll.errors import AtollError, SystemFailure
from atoll.images.model import Descriptor

VERSION = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA = """
CREATE TABLE images (
    id TEXT PRIMARY KEY, manifest_type TEXT, manifest_digest TEXT, manifest_size INTEGER, parent TEXT,
    added_ns INTEGER NOT NULL, tagged_ns INTEGER NOT NULL, hidden INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE names (name TEXT PRIMARY KEY, image TEXT NOT NULL, is_digest INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX names_by_image ON names (image);
CREATE TABLE layers (
    chain TEXT PRIMARY KEY, diff TEXT NOT NULL, parent TEXT, directory TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL, tar_size INTEGER NOT NULL, ours INTEGER NOT NULL, boot TEXT
) WITHOUT ROWID;
CREATE TABLE image_layers (
    image TEXT NOT NULL, position INTEGER NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_by_chain ON image_layers (chain);
CREATE TABLE layer_blobs (
    diff TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (diff, digest)
) WITHOUT ROWID;
CREATE TABLE sources (digest TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE TABLE leases (owner TEXT NOT NULL, chain TEXT NOT NULL, PRIMARY KEY (owner, chain)) WITHOUT ROWID;
"""


class ImageRow(NamedTuple):
    id: str
    manifest: Descriptor | None
    parent: str | None
    added_ns: int
    tagged_ns: int


class LayerRow(NamedTuple):
    chain: str
    diff: str
    parent: str | None
    directory: str
    size: int
    tar_size: int
    ours: bool


_IMAGE = "SELECT id, manifest_type, manifest_digest, manifest_size, parent, added_ns, tagged_ns FROM images"
_LAYER = "SELECT layers.chain, diff, parent, directory, size, tar_size, ours FROM layers"


class Database:
    """Rows in, rows out; the rules stand in the modules above."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._boot = BOOT_ID.read_text().strip()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        self._path.touch(0o600)
        self._path.chmod(0o600)  # the journal takes its mode from here
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # an acknowledged tag is on disk
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            connection.close()
            raise AtollError(f"{self._path} was written by a newer Atoll (layout {version}, this one knows {VERSION}): upgrade")
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        self._connection = connection

    def faults(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        return [row[0] for row in self._run("PRAGMA integrity_check") if row[0] != "ok"]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def generation(self) -> tuple[int, int]:
        """Others after every change of a row, by us or by another process."""
        by_others = self._run("PRAGMA data_version")[0][0]
        assert self._connection is not None
        return self._connection.total_changes, by_others

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            self._run("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection is not None and self._connection.in_transaction:  # a full disk has rolled back already
                    self._run("ROLLBACK")
                raise
            self._run("COMMIT")

    def _run(self, statement: str, arguments: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            if self._connection is None:
                raise AtollError("the image store is closed")
            try:
                return self._connection.execute(statement, arguments).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise SystemFailure(f"write {self._path}", errno.ENOSPC) from error
                raise

    # images --------------------------------------------------------------------------------------------------------------------------
    def images(self) -> list[ImageRow]:
        return [_image_row(row) for row in self._run(f"{_IMAGE} WHERE hidden = 0 ORDER BY added_ns DESC, id")]

    def image(self, image_id: str, *, or_hidden: bool = False) -> ImageRow | None:
        rows = self._run(f"{_IMAGE} WHERE id = ? AND hidden <= ?", (image_id, or_hidden))
        return _image_row(rows[0]) if rows else None

    def images_with_prefix(self, digits: str, limit: int = 2) -> list[str]:
        # Hex digits only, checked by the caller: ";" is the character after ":" and "g" the one after "f".
        rows = self._run(
            "SELECT id FROM images WHERE id >= ? AND id < ? AND hidden = 0 LIMIT ?", (f"sha256:{digits}", f"sha256:{digits}g", limit)
        )
        return [row[0] for row in rows]

    def add_image(self, image_id: str, chains: Sequence[str], *, manifest: Descriptor | None, parent: str | None, now_ns: int) -> None:
        """Adds the image or keeps the one there, taking over `manifest` where it is told."""
        fields = (manifest.media_type, manifest.digest, manifest.size) if manifest else (None, None, None)
        with self.transaction():
            self._run(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (id) DO UPDATE SET hidden = 0,"
                " manifest_type = coalesce(excluded.manifest_type, manifest_type),"
                " manifest_digest = coalesce(excluded.manifest_digest, manifest_digest),"
                " manifest_size = coalesce(excluded.manifest_size, manifest_size)",
                (image_id, *fields, parent, now_ns, now_ns),
            )
            for position, chain in enumerate(chains):
                self._run("INSERT OR IGNORE INTO image_layers VALUES (?, ?, ?)", (image_id, position, chain))

    def hide_image(self, image_id: str) -> None:
        """Gone for users, while a stopped container still stands on its layers."""
        self._run("UPDATE images SET hidden = 1 WHERE id = ?", (image_id,))

    def hidden_images(self) -> list[str]:
        return [row[0] for row in self._run("SELECT id FROM images WHERE hidden = 1")]

    def delete_image(self, image_id: str) -> None:
        with self.transaction():
            self._run("DELETE FROM names WHERE image = ?", (image_id,))
            self._run("DELETE FROM image_layers WHERE image = ?", (image_id,))
            self._run("DELETE FROM images WHERE id = ?", (image_id,))

    def children(self, image_id: str) -> list[str]:
        return [row[0] for row in self._run("SELECT id FROM images WHERE parent = ? AND hidden = 0", (image_id,))]

    # names ---------------------------------------------------------------------------------------------------------------------------
    def name(self, name: str) -> str | None:
        """The image a canonical tag or digest reference names."""
        rows = self._run("SELECT image FROM names WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def names_of(self, image_id: str, *, digests: bool) -> list[str]:
        return [row[0] for row in self._run("SELECT name FROM names WHERE image = ? AND is_digest = ? ORDER BY name", (image_id, digests))]

    def set_name(self, name: str, image_id: str, *, is_digest: bool, now_ns: int) -> None:
        with self.transaction():
            self._run("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (name, image_id, is_digest))
            self._run("UPDATE images SET tagged_ns = ?, hidden = 0 WHERE id = ?", (now_ns, image_id))

    def delete_name(self, name: str) -> None:
        self._run("DELETE FROM names WHERE name = ?", (name,))

    # layers --------------------------------------------------------------------------------------------------------------------------
    def layer(self, chain: str) -> LayerRow | None:
        rows = self._run(f"{_LAYER} WHERE chain = ?", (chain,))
        return LayerRow(*rows[0]) if rows else None

    def layers_of(self, image_id: str) -> list[LayerRow]:
        rows = self._run(f"{_LAYER} JOIN image_layers USING (chain) WHERE image = ? ORDER BY position", (image_id,))
        return [LayerRow(*row) for row in rows]

    def layers(self) -> list[LayerRow]:
        return [LayerRow(*row) for row in self._run(_LAYER)]

    def directory_taken(self, directory: str) -> bool:
        return bool(self._run("SELECT 1 FROM layers WHERE directory = ?", (directory,)))

    def add_layer(self, row: LayerRow) -> None:
        self._run("INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, self._boot))

    def delete_layer(self, chain: str) -> None:
        self._run("DELETE FROM layers WHERE chain = ?", (chain,))

    def unsynced_layers(self) -> list[LayerRow]:
        return [LayerRow(*row) for row in self._run(f"{_LAYER} WHERE boot IS NOT NULL")]

    def mark_synced(self, chains: Iterable[str]) -> None:
        with self.transaction():
            for chain in chains:
                self._run("UPDATE layers SET boot = NULL WHERE chain = ?", (chain,))

    def lost_layers(self) -> list[LayerRow]:
        """Those written before the last boot that nothing had flushed."""
        return [LayerRow(*row) for row in self._run(f"{_LAYER} WHERE boot IS NOT NULL AND boot != ?", (self._boot,))]

    def unheld_layers(self) -> list[LayerRow]:
        """Layers that neither an image (a hidden one included) nor a lease holds."""
        held = {row[0] for row in self._run("SELECT chain FROM image_layers UNION SELECT chain FROM leases")}
        return [row for row in self.layers() if row.chain not in held]

    def image_counts(self) -> dict[str, int]:
        """How many images stand on each layer."""
        return dict(self._run("SELECT chain, count(DISTINCT image) FROM image_layers GROUP BY chain"))

    # blobs ---------------------------------------------------------------------------------------------------------------------------
    def layer_blobs(self, diff: str) -> list[Descriptor]:
        rows = self._run("SELECT media_type, digest, size FROM layer_blobs WHERE diff = ? ORDER BY size", (diff,))
        return [Descriptor(*row) for row in rows]

    def add_layer_blob(self, diff: str, blob: Descriptor) -> None:
        self._run("INSERT OR REPLACE INTO layer_blobs VALUES (?, ?, ?, ?)", (diff, blob.digest, blob.media_type, blob.size))

    def diff_of_blob(self, digest: str) -> str | None:
        rows = self._run("SELECT diff FROM layer_blobs WHERE digest = ?", (digest,))
        return rows[0][0] if rows else None

    def held_blobs(self) -> set[str]:
        """Configs, manifests, and the blobs of layers packed by others, which nothing but the blob can give again."""
        with self.transaction():
            self._run("DELETE FROM layer_blobs WHERE diff NOT IN (SELECT diff FROM layers)")
            rows = self._run(
                "SELECT id FROM images UNION SELECT manifest_digest FROM images WHERE manifest_digest IS NOT NULL"
                " UNION SELECT digest FROM layer_blobs WHERE diff IN (SELECT diff FROM layers WHERE NOT ours)"
            )
            return {row[0] for row in rows}

    def add_source(self, digest: str, repository: str) -> None:
        self._run("INSERT OR IGNORE INTO sources VALUES (?, ?)", (digest, repository))

    def sources(self, digest: str) -> list[str]:
        """Repositories ("docker.io/library/debian") that are known to have had the blob."""
        return [row[0] for row in self._run("SELECT repository FROM sources WHERE digest = ? ORDER BY repository", (digest,))]

    def forget_sources(self) -> None:
        """Drops what is known about blobs that belong to no image and no layer any more."""
        self._run("DELETE FROM sources WHERE digest NOT IN (SELECT digest FROM layer_blobs UNION SELECT id FROM images)")

    # leases --------------------------------------------------------------------------------------------------------------------------
    def set_lease(self, owner: str, chains: Iterable[str]) -> None:
        with self.transaction():
            self._run("DELETE FROM leases WHERE owner = ?", (owner,))
            for chain in chains:
                self._run("INSERT OR IGNORE INTO leases VALUES (?, ?)", (owner, chain))

    def leases(self) -> dict[str, list[str]]:
        held: dict[str, list[str]] = {}
        for owner, chain in self._run("SELECT owner, chain FROM leases ORDER BY owner"):
            held.setdefault(owner, []).append(chain)
        return held


def _image_row(row: tuple[Any, ...]) -> ImageRow:
    image_id, media_type, digest, size, parent, added_ns, tagged_ns = row
    return ImageRow(image_id, Descriptor(media_type, digest, size) if digest else None, parent, added_ns, tagged_ns)
