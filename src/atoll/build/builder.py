"""A build from its tar to its image: the one door behind the classic /build stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from atoll.build.cache import Cache
from atoll.build.context import leave_out_ignored, read, unpacked
from atoll.build.executor import Executor
from atoll.build.lexer import SIZE_MAX
from atoll.build.options import Options
from atoll.build.parser import parse
from atoll.build.solver import Solver
from atoll.build.transcript import Transcript
from atoll.images import Image, ImageStore, Progress
from atoll.images import parse as parse_reference


class Builder:
    """Builds for one instance. DIRECTORY holds the cache; SCRATCH lies on the content's file system."""

    def __init__(self, directory: Path, scratch: Path, images: ImageStore, executor: Executor) -> None:
        self._directory = directory
        self._scratch = scratch
        self._images = images
        self._executor = executor
        self._cache: Cache | None = None

    @property
    def cache(self) -> Cache:
        if self._cache is None:
            self._cache = Cache(self._directory / "cache.db", self._images.leases, self._images.snapshots)
        return self._cache

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()

    async def build(self, context: AsyncIterator[bytes], options: Options, progress: Progress) -> Image:
        """The image; PROGRESS gets the classic builder's messages. Cancelled, it stops its step and leaves the cache sound.

        Raises DockerfileError, InvalidInput, NotFound, NotSupported, StepFailed, Unavailable.
        """
        tags = [parse_reference(tag).with_default_tag().familiar for tag in options.tags]
        transcript = Transcript(progress)
        self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            async with unpacked(context, self._scratch) as tree:
                file = parse(read(tree, options.dockerfile, SIZE_MAX + 1), options.dockerfile)
                await asyncio.to_thread(leave_out_ignored, tree, options.dockerfile)
                solver = Solver(file, tree, options, self._images, self._executor, self.cache, transcript, self._scratch)
                with self._images.working():
                    image = await solver.solve()
                    await self._images.settle()
            transcript.done(image.id, tags)
            return image
        finally:
            transcript.close()

    async def prune(self, *, unused_since: float | None = None) -> dict[str, Any]:
        """POST /build/prune: {"CachesDeleted": [keys], "SpaceReclaimed": bytes}. UNUSED_SINCE is in seconds since the epoch."""
        keys, size = self.cache.prune(unused_since=unused_since)
        await self._images.collect()
        return {"CachesDeleted": keys, "SpaceReclaimed": size}
