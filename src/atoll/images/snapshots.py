"""Unpacked layers: content/l/<short id>, each in overlay form, made once for each chain id and never written again.

Names are short since the kernel takes one page of mount options: /var/lib/atoll/content/l/01234567 leaves room for some 110 layers.
A layer made here (a build's step, a commit) is not stored a second time as a blob: packing is deterministic, so its tar can be made
again from its directory whenever a push or a save wants it, and its digest shows whether it is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from atoll.errors import DigestMismatch, InvalidInput, NotFound
from atoll.images.ahead import ahead
from atoll.images.compression import decompress
from atoll.images.database import Database, LayerRow
from atoll.images.extract import LAYER, extract_tar
from atoll.images.model import Image, Layer, chain_id
from atoll.images.pack import Packed, pack_tree
from atoll.images.treewalk import remove_in_root, remove_tree

SHORT_ID = 8  # hex digits of a directory's name; grows where two chains collide
LAYERS_MAX = 125  # Docker's limit as well


class Snapshots:
    """The layers of one content directory."""

    def __init__(self, root: Path, scratch: Path, database: Database) -> None:
        self._root = root
        self._scratch = scratch
        self._database = database

    @property
    def directory(self) -> Path:
        return self._root

    def create(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, chain: str) -> Layer:
        """Raises NotFound."""
        row = self._database.layer(chain)
        if row is None:
            raise NotFound(f"no such layer: {chain}")
        return self.layer_of(row)

    def find(self, chain: str) -> Layer | None:
        row = self._database.layer(chain)
        return self.layer_of(row) if row else None

    def layer_of(self, row: LayerRow) -> Layer:
        return Layer(row.chain, row.diff, row.parent, self._root / row.directory, row.size)

    def stack(self, chain: str | None) -> tuple[Layer, ...]:
        """The layer and all beneath it, from the bottom up. Raises NotFound."""
        layers: list[Layer] = []
        while chain is not None:
            layer = self.get(chain)
            layers.append(layer)
            chain = layer.parent
        return tuple(reversed(layers))

    def overlay_lowers(self, layers: Image | Sequence[Layer]) -> tuple[Path, ...]:
        """The directories for overlay's lowerdir, top first; empty for an image without layers."""
        stack = layers.layers if isinstance(layers, Image) else layers
        return tuple(layer.directory for layer in reversed(stack))

    async def unpack(self, chunks: Iterable[bytes], parent: str | None = None) -> Layer:
        """`unpack_now` in a thread."""
        return await asyncio.to_thread(self.unpack_now, chunks, parent)

    def unpack_now(self, chunks: Iterable[bytes], parent: str | None = None, *, finish: Callable[[int], None] | None = None) -> Layer:
        """A layer with the content of a tar, plain or compressed, above `parent`, but packed our way: no blob need be kept for it.

        `finish` gets a descriptor of the unpacked root and may change it. Blocks. Raises InvalidInput, LimitExceeded.
        """
        lowers = self.overlay_lowers(self.stack(parent))
        with self._new_directory() as directory, _ended(chunks):
            with _opened(directory) as root, ahead(decompress(chunks)) as plain:
                extract_tar(plain, root, LAYER, lowers=lowers)
                if finish is not None:
                    finish(root)
            return self.adopt_now(directory, parent)

    def unpack_blob_now(self, chunks: Iterable[bytes], parent: str | None, diff_id: str) -> Layer:
        """The layer `diff_id` from a blob, whose keeping is the caller's affair: its packing is not ours and cannot be made again.

        Blocks. Raises InvalidInput, LimitExceeded, DigestMismatch where the tar is not what it was called.
        """
        lowers = self.overlay_lowers(self.stack(parent))
        plain = _Hashing(decompress(chunks))
        with self._new_directory() as directory, _ended(chunks):
            with _opened(directory) as root, ahead(plain) as pieces:
                extracted = extract_tar(pieces, root, LAYER, lowers=lowers)
            if plain.digest != diff_id:
                raise DigestMismatch(f"layer {diff_id} unpacks to content of {plain.digest}: refused")
            return self._keep(directory, parent, plain.digest, extracted.size, plain.size, ours=False)

    async def commit(self, upper: Path, parent: str | None, *, consume: bool = False, ignore: Collection[str] = ()) -> Layer:
        """The layer of what an overlay's upper directory holds above `parent`.

        With `consume` the directory itself becomes the layer (a rename; it must lie on the content's file system and no longer be mounted),
        otherwise it is copied and may be in use. `ignore`: paths left out ("etc/resolv.conf"), with `consume` removed from the upper.
        """
        return await asyncio.to_thread(self.adopt_now if consume else self._copy, upper, parent, ignore)

    def adopt_now(self, upper: Path, parent: str | None, ignore: Collection[str] = ()) -> Layer:
        """Makes `upper` itself the layer; `upper` is gone afterwards."""
        self._check_depth(parent)
        for path in ignore:
            _remove_inside(upper, path)
        packed = Packed()
        with _opened(upper) as root:
            plain = _Hashing(pack_tree(root, layer=True, packed=packed))
            for _ in plain:
                pass
        return self._keep(upper, parent, plain.digest, packed.size, packed.tar_size)

    def _copy(self, upper: Path, parent: str | None, ignore: Collection[str]) -> Layer:
        self._check_depth(parent)
        packed = Packed()
        with self._new_directory() as directory:
            with _opened(upper) as source, _opened(directory) as root:
                plain = _Hashing(pack_tree(source, layer=True, ignore=ignore, packed=packed))
                extract_tar(plain, root, LAYER)
            return self._keep(directory, parent, plain.digest, packed.size, packed.tar_size)

    def tar(self, layer: Layer) -> Iterator[bytes]:
        """The layer's tar, made again from its directory. Raises DigestMismatch at the end where it is not what it was."""
        with _opened(layer.directory) as root:
            plain = _Hashing(pack_tree(root, layer=True))
            yield from plain
        if plain.digest != layer.diff_id:
            raise DigestMismatch(f"layer {layer.diff_id} in {layer.directory} was changed: its tar is now {plain.digest}")

    def delete(self, row: LayerRow) -> None:
        """Forgets the layer at once; its directory moves aside, for `sweep` to remove without haste."""
        self._database.delete_layer(row.chain)
        with suppress(FileNotFoundError):
            (self._root / row.directory).rename(Path(tempfile.mkdtemp(prefix="gone-", dir=self._scratch)) / "layer")

    def remove_strays(self) -> None:
        """Directories no row speaks of. Only while nobody else has the content open."""
        known = {row.directory for row in self._database.layers()}
        for path in self._root.iterdir():
            if path.name not in known:
                remove_tree(path)

    @contextmanager
    def _new_directory(self) -> Iterator[Path]:
        path = Path(tempfile.mkdtemp(prefix="layer-", dir=self._scratch))
        path.chmod(0o755)  # it becomes a root directory
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)  # kept layers have been renamed away

    def _keep(self, directory: Path, parent: str | None, diff: str, size: int, tar_size: int, *, ours: bool = True) -> Layer:
        chain = chain_id(parent, diff)
        with self._database.transaction():
            present = self._database.layer(chain)
            if present is None:
                short = self._short_name(chain)
                directory.rename(self._root / short)
                row = LayerRow(chain, diff, parent, short, size, tar_size, ours)
                self._database.add_layer(row)
                return self.layer_of(row)
        remove_tree(directory)
        return self.layer_of(present)

    def _short_name(self, chain: str) -> str:
        digits = chain.removeprefix("sha256:")
        length = SHORT_ID
        while self._database.directory_taken(digits[:length]):
            length += 1
        path = self._root / digits[:length]
        if path.exists():  # a crash came between rename and row
            remove_tree(path)
        return digits[:length]

    def _check_depth(self, parent: str | None) -> None:
        if len(self.stack(parent)) >= LAYERS_MAX:
            raise InvalidInput(f"max depth exceeded: an image has at most {LAYERS_MAX} layers")


class _Hashing:
    """Passes chunks on, summing them up."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._hash = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.size += len(chunk)
            yield chunk

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _ended(chunks: Iterable[bytes]) -> Iterator[None]:
    """Ends a generator that was not read to its end, so that a blob that is deleted gives its space back now."""
    try:
        yield
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


def _remove_inside(upper: Path, path: str) -> None:
    with _opened(upper) as root:
        remove_in_root(root, path)
