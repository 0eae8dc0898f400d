"""What images cost on disk, as du(1) counts: blocks, directories included, each file once whatever number of names it has.

A layer never changes, so each is walked once in the life of a process; the files beside the layers are few.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from atoll.images.model import Layer

BLOCK = 512  # bytes of st_blocks, whatever the file system's own


class Usage:
    """Of one content directory, whose layers lie in `layers`."""

    def __init__(self, root: Path, layers: Path) -> None:
        self._root = root
        self._layers = layers
        self._known: dict[str, int] = {}

    def measure(self, layers: Iterable[Layer]) -> None:
        """Walks layers that are not known yet. Blocks."""
        present = {layer.chain_id: layer.directory for layer in layers}
        for chain in self._known.keys() - present.keys():
            del self._known[chain]
        for chain, directory in present.items():
            if chain not in self._known:
                self._known[chain] = blocks(os.fspath(directory), set())

    def of(self, layer: Layer) -> int:
        """Bytes on disk, walked where need be."""
        if layer.chain_id not in self._known:
            self._known[layer.chain_id] = blocks(os.fspath(layer.directory), set())
        return self._known[layer.chain_id]

    def total(self) -> int:
        """Bytes on disk of all content: layers, blobs, and what keeps the books."""
        return sum(self._known.values()) + blocks(os.fspath(self._root), set(), skip=os.fspath(self._layers))


def blocks(path: str, seen: set[int], skip: str = "") -> int:
    """Bytes on disk below and of `path`; inodes in `seen` were counted before. What vanishes meanwhile is not counted."""
    try:
        total = os.lstat(path).st_blocks
        if path == skip:
            return total * BLOCK
        for entry in _entries(path):
            info = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                total += blocks(entry.path, seen, skip) // BLOCK
            elif info.st_nlink == 1 or info.st_ino not in seen:
                seen.add(info.st_ino)
                total += info.st_blocks
    except FileNotFoundError:
        return 0
    return total * BLOCK


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from entries
