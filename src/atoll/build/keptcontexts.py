"""Contexts that stay from one build to the next, so that a client need only send what has changed since.

Each is a tree, and a record of what the client told of each file when it was last complete (kind, mode, size, time, link). The record goes
before the tree is touched and comes back when it is whole again: one that a crash cut short has none, and begins anew. Layers may share a
tree's files, since no file is ever changed in place, only replaced.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from atoll.build.cache import key_of
from atoll.build.newlayer import DIRECTORY_MODE
from atoll.images.threads import in_thread
from atoll.kernel.openat2 import open_in_root

TREE, RECORD, NAME = "tree", "record", "name"
NAME_LENGTH = 24  # hex digits
KEPT_MAX = 16

Signature = tuple[int, int, int, int, str]
"""Kind and mode as the client has them, owner left out; size; modification time in ns; device; link."""


class KeptContext:
    """One, held by one build alone. `known` is what is in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.known: dict[str, Signature] = {}

    @property
    def tree(self) -> Path:
        return self._directory / TREE

    def open(self, name: str) -> None:
        """Blocks, as all here."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._directory / NAME).write_text(name, "utf-8", "surrogateescape")
        record = self._directory / RECORD
        with suppress(OSError, orjson.JSONDecodeError):
            self.known = {path: tuple(signature) for path, signature in orjson.loads(record.read_bytes()).items()}
        record.unlink(missing_ok=True)
        if not self.known:
            shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir(exist_ok=True)
        self.tree.chmod(DIRECTORY_MODE)

    def close(self, seen: Mapping[str, Signature], directories: Mapping[str, bool]) -> None:
        """The tree is whole: what was known and not SEEN again goes. DIRECTORIES are those of SEEN that are such."""
        with _opened(self.tree) as root:
            for path in self.known:
                parent, _, base = path.rpartition("/")
                if path not in seen and (not parent or directories.get(parent)):  # below one that goes, it goes with that
                    _remove(root, parent, base)
        temporary = self._directory / f"{RECORD}.new"
        temporary.write_bytes(orjson.dumps(seen))
        temporary.rename(self._directory / RECORD)


class KeptContexts:
    """All of one instance, below DIRECTORY."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: set[str] = set()

    @asynccontextmanager
    async def hold(self, name: str, *parts: Any) -> AsyncIterator[KeptContext | None]:
        """The context NAME, which PARTS tell from others of that name, for one build; None while another holds it."""
        key = key_of(name, *parts)[:NAME_LENGTH]
        if key in self._held:
            yield None
            return
        self._held.add(key)
        try:
            context = KeptContext(self._directory / key)
            await in_thread(lambda: context.open(name))
            yield context
            await self._forget_oldest()
        finally:
            self._held.discard(key)

    async def _forget_oldest(self) -> None:
        rest = sorted((path for path in self._all() if path.name not in self._held), key=_used)
        await self._remove(rest[: max(0, len(rest) + len(self._held) - KEPT_MAX)])

    async def _remove(self, doomed: Sequence[Path]) -> int:
        """Removes what no build holds; bytes given back. Until it has gone it counts as held, so that no build takes it meanwhile."""
        names = {path.name for path in doomed}
        self._held |= names

        def work() -> int:
            size = sum(_size(path) for path in doomed)
            for path in doomed:
                shutil.rmtree(path)
            return size

        try:
            return await in_thread(work)
        finally:
            self._held -= names

    def _all(self) -> Iterator[Path]:
        return iter(sorted(self._directory.iterdir())) if self._directory.is_dir() else iter(())

    def rows(self) -> list[dict[str, Any]]:
        """As GET /system/df shows them."""
        return [self._row(path) for path in self._all()]

    def _row(self, path: Path) -> dict[str, Any]:
        used = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_used(path)))
        name = (path / NAME).read_text("utf-8", "surrogateescape") if (path / NAME).exists() else path.name
        return {
            "ID": path.name,
            "Type": "source.local",
            "Description": f"local source for {name}",
            "InUse": path.name in self._held,
            "Shared": False,
            "Size": _size(path),
            "CreatedAt": used,
            "LastUsedAt": used,
            "UsageCount": 1,
        }

    async def prune(self, *, unused_since: float | None = None) -> tuple[list[str], int]:
        """Removes those no build holds (those not used since, where given): names, and bytes given back."""
        doomed = [path for path in self._all() if path.name not in self._held and (unused_since is None or _used(path) < unused_since)]
        return [path.name for path in doomed], await self._remove(doomed)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _remove(root: int, parent: str, base: str) -> None:
    fd = open_in_root(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(base, dir_fd=fd, follow_symlinks=False).st_mode):
                shutil.rmtree(base, dir_fd=fd)
            else:
                os.unlink(base, dir_fd=fd)
    finally:
        os.close(fd)


def _used(path: Path) -> float:
    return path.stat().st_mtime


def _size(path: Path) -> int:
    """Of what would come back: files that layers share stay with them."""
    found = (os.lstat(os.path.join(top, name)) for top, _, names in os.walk(path) for name in names)
    return sum(one.st_size for one in found if one.st_nlink == 1)
