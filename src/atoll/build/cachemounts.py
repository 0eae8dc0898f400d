"""Directories that outlive builds: what RUN --mount=type=cache sees at its target (pip's wheels, apt's archives, compilers' objects).

A cache is known by its id, what it was filled with, and its first owner and mode: an equal mount in any build finds it again. `shared`
lets all in at once, `locked` one after the other, `private` gives each step that comes while another is in a directory of its own. What
it holds is never part of a layer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atoll.build.cache import key_of
from atoll.build.mounts import Mount
from atoll.images.threads import in_thread, to_its_end

DATA = "data"
NAME = "id"
NAME_LENGTH = 24  # hex digits
PRIVATE_MAX = 100  # directories one private cache may have at once

Fill = Callable[[Path], None]


class CacheMounts:
    """All of one instance, below DIRECTORY: <name>/data, and <name>/id for people."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users: dict[str, int] = {}
        self._locked: set[str] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, mount: Mount, content: str = "", fill: Fill | None = None) -> AsyncIterator[Path]:
        """The directory of a cache mount, for as long as a step uses it. FILL puts the first CONTENT (its digest) into a new one."""
        name = key_of(mount.id, content, mount.mode, mount.uid, mount.gid)[:NAME_LENGTH]
        async with self._changed:
            if mount.sharing == "private":
                name = self._free(name)
            else:
                await self._changed.wait_for(lambda: self._is_open(name, alone=mount.sharing == "locked"))
            self._users[name] = self._users.get(name, 0) + 1
            if mount.sharing == "locked":
                self._locked.add(name)
        try:
            yield await in_thread(lambda: self._made(name, mount, fill))
        finally:
            await to_its_end(self._leave(name))

    def _is_open(self, name: str, *, alone: bool) -> bool:
        return name not in self._locked and not (alone and self._users.get(name))

    def _free(self, name: str) -> str:
        names = (f"{name}-{number}" if number else name for number in range(PRIVATE_MAX))
        return next(one for one in names if not self._users.get(one))

    async def _leave(self, name: str) -> None:
        async with self._changed:
            self._locked.discard(name)
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]
            self._changed.notify_all()

    def _made(self, name: str, mount: Mount, fill: Fill | None) -> Path:
        """Filled beside its place and then moved there, so that one cut short is no cache."""
        place = self._directory / name
        if not place.is_dir():
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = Path(tempfile.mkdtemp(prefix="new-", dir=self._directory))
            (fresh / DATA).mkdir()
            if fill is not None:
                fill(fresh / DATA)
            else:
                os.chown(fresh / DATA, mount.uid, mount.gid)
                (fresh / DATA).chmod(mount.mode)
            (fresh / NAME).write_text(mount.id, "utf-8", "surrogateescape")
            fresh.rename(place)
        os.utime(place / NAME)
        return place / DATA

    def _all(self) -> Iterator[Path]:
        return iter(sorted(self._directory.iterdir())) if self._directory.is_dir() else iter(())

    def rows(self) -> list[dict[str, Any]]:
        """As GET /system/df shows them."""
        return [self._row(path) for path in self._all() if (path / NAME).exists()]

    def _row(self, path: Path) -> dict[str, Any]:
        used = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((path / NAME).stat().st_mtime))
        return {
            "ID": path.name,
            "Type": "exec.cachemount",
            "Description": f"cached mount {(path / NAME).read_text('utf-8', 'surrogateescape')}",
            "InUse": bool(self._users.get(path.name)),
            "Shared": False,
            "Size": _size(path / DATA),
            "CreatedAt": used,
            "LastUsedAt": used,
            "UsageCount": 1,
        }

    async def prune(self, *, unused_since: float | None = None) -> tuple[list[str], int]:
        """Removes what no step uses (those not used since, where given): names, and bytes given back."""
        doomed = [
            path
            for path in self._all()
            if not self._users.get(path.name) and (unused_since is None or (path / NAME).stat().st_mtime < unused_since)
        ]

        def work() -> int:
            size = sum(_size(path) for path in doomed)
            for path in doomed:
                shutil.rmtree(path)
            return size

        return [path.name for path in doomed], await in_thread(work)

    def remove_unfinished(self) -> None:
        """What a crash left half filled. Only before the first build."""
        for path in self._all():
            if not (path / NAME).exists() or path.name.startswith("new-"):
                shutil.rmtree(path)


def _size(path: Path) -> int:
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, files in os.walk(path) for name in files)
