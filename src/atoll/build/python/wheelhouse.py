"""Wheels that were fetched, by digest, for as long as the build cache keeps them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path

from atoll.build.python.locks import Wheel
from atoll.build.remote import Checksum, download
from atoll.errors import AtollError

PARALLEL = 4
READ = 1 << 20


class Wheelhouse:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._slots = asyncio.Semaphore(PARALLEL)

    async def get(self, wheel: Wheel) -> Path:
        """The wheel's file, named by its digest, which is checked where the lock has one.

        Raises DigestMismatch, NotFound, Unavailable, each naming the distribution.
        """
        file = wheel.file
        if file.sha256 and (known := self._directory / file.sha256).is_file():
            os.utime(known)  # used now: prune looks at it
            return known
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with self._slots:
            with tempfile.TemporaryDirectory(dir=self._directory, prefix="fetch-") as place:
                checksum = Checksum("sha256", file.sha256) if file.sha256 else None
                try:
                    fetched = await download(file.url, Path(place), checksum)
                except AtollError as error:
                    raise type(error)(f"{wheel.locked}: {error}") from error
                path = Path(place) / fetched.name
                digest = file.sha256 or await asyncio.to_thread(_digest, path)
                return path.rename(self._directory / digest)

    def prune(self, unused_since: float | None) -> int:
        """Removes wheels (those not used since, where given); the bytes given back. Blocks."""
        freed = 0
        for path in self._directory.glob("[0-9a-f]*"):
            info = path.stat()
            if unused_since is None or info.st_mtime < unused_since:
                path.unlink()
                freed += info.st_size
        return freed


def _digest(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ):
            state.update(data)
    return state.hexdigest()
