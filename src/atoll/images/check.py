"""`atoll image fsck`: whether all that rows speak of is on disk, and is what its digest says.

A layer made here is packed again, which must give its diff id. One that came packed by others is held against its blob, which is held
against its own digest: every file's bytes are compared, as they stand in the tar for the last time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator

from atoll.errors import AtollError, InvalidInput, NotFound
from atoll.images.blobs import Blobs
from atoll.images.catalog import parse_config
from atoll.images.compression import decompress
from atoll.images.database import Database, LayerRow
from atoll.images.extract import WHITEOUT, clean_name
from atoll.images.model import Layer
from atoll.images.snapshots import Snapshots
from atoll.images.tar import Kind
from atoll.images.tarreader import TarReader
from atoll.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_in_root

READ_SIZE = 1 << 20


def check(database: Database, blobs: Blobs, snapshots: Snapshots, note: Callable[[str], None]) -> Iterator[str]:
    """Every fault, in words; `note` hears what is looked at. Blocks, and reads all there is: nothing may be collected meanwhile."""
    yield from (f"images.db: {fault}" for fault in database.faults())
    broken: set[str] = set()
    digest: str
    for digest in blobs.all():
        note(digest)
        if (actual := _digest(blobs.chunks(digest))) != digest:
            broken.add(digest)
            yield f"blob {digest} is in truth {actual}"
    for image in database.images():
        for digest in filter(None, (image.id, image.manifest.digest if image.manifest else None)):
            if blobs.size(digest) is None:
                yield f"image {image.id} lacks its document {digest}"
        rows = database.layers_of(image.id)
        if image.id not in broken and blobs.size(image.id) is not None:
            wanted = parse_config(blobs.read(image.id))["rootfs"]["diff_ids"]
            if [row.diff for row in rows] != wanted:
                yield f"image {image.id} has {len(rows)} of its {len(wanted)} layers"
    for row in database.layers():
        note(row.diff)
        try:
            yield from _layer(row, database, blobs, snapshots, broken)
        except (AtollError, OSError) as error:
            yield f"layer {row.diff}: {error}"


def _layer(row: LayerRow, database: Database, blobs: Blobs, snapshots: Snapshots, broken: set[str]) -> Iterator[str]:
    layer = snapshots.layer_of(row)
    if not layer.directory.is_dir():
        yield f"layer {row.diff} is missing on disk, at {layer.directory}"
        return
    if row.ours:
        for _ in snapshots.tar(layer):
            pass  # raises where it is not what it was
        return
    blob = next((one for one in database.layer_blobs(row.diff) if blobs.size(one.digest) is not None and one.digest not in broken), None)
    if blob is None:
        yield f"layer {row.diff} has no sound blob: it can be run, but neither pushed nor saved as it came"
        return
    yield from _compare(layer, decompress(blobs.chunks(blob.digest)))


def _compare(layer: Layer, plain: Iterator[bytes]) -> Iterator[str]:
    total = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for chunk in plain:
            total.update(chunk)
            yield chunk

    reader = TarReader(hashed())
    stated: dict[bytes, bytes | None] = {}  # the last word on every name; None for what is no plain file
    for entry in reader:
        path = clean_name(entry.name)
        if entry.kind is Kind.FILE and entry.sparse is None and not path.rpartition(b"/")[2].startswith(WHITEOUT):
            content = hashlib.sha256()
            for piece in reader.data():
                content.update(piece)
            stated[path] = content.digest()
        else:
            stated[path] = None
    reader.drain()
    if (actual := f"sha256:{total.hexdigest()}") != layer.diff_id:
        yield f"layer {layer.diff_id} has a blob that unpacks to {actual}"
    root = os.open(layer.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, digest in stated.items():
            if digest is not None and _content(root, path) not in (digest, None):
                yield f"layer {layer.diff_id}: {path.decode('utf-8', 'backslashreplace')} is not what it was in the tar"
    finally:
        os.close(root)


def _content(root: int, path: bytes) -> bytes | None:
    """The digest of a file's bytes; None where a later member of another kind took its place or hid it behind a symlink."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except FileNotFoundError:
        return b""
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = hashlib.sha256()
        while data := os.read(fd, READ_SIZE):
            content.update(data)
        return content.digest()
    finally:
        os.close(fd)


def _digest(chunks: Iterator[bytes]) -> str:
    state = hashlib.sha256()
    try:
        for chunk in chunks:
            state.update(chunk)
    except (NotFound, InvalidInput, OSError) as error:
        return f"unreadable: {error}"
    return f"sha256:{state.hexdigest()}"
