"""A build from its context to its image: the one door behind the classic /build stream."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from atoll.build import checks
from atoll.build.arguments import CHECK, KEEP_GIT, SYNTAX, Arguments
from atoll.build.cache import Cache
from atoll.build.cachemounts import CacheMounts
from atoll.build.context import fetched, leave_out_ignored, read_dockerfile, unpacked
from atoll.build.executor import Executor
from atoll.build.options import Options
from atoll.build.parser import check_frontend, parse
from atoll.build.plan import Plan
from atoll.build.solver import Solver
from atoll.build.sources import Tree
from atoll.build.threads import to_its_end
from atoll.build.transcript import Transcript, at_once
from atoll.build.work import Build, Workshop
from atoll.errors import SystemFailure, Unavailable
from atoll.images import Image, ImageStore, Progress
from atoll.images import parse as parse_reference

FULL = (errno.ENOSPC, errno.EDQUOT)


class Builder:
    """Builds for one instance. DIRECTORY holds the cache; SCRATCH lies on the content's file system."""

    def __init__(self, directory: Path, scratch: Path, images: ImageStore, executor: Executor) -> None:
        self._directory = directory
        self._scratch = scratch
        self._images = images
        self._executor = executor
        self._workshop: Workshop | None = None

    @property
    def workshop(self) -> Workshop:
        """Made with the first build: most engines of a cluster never build."""
        if self._workshop is None:
            self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
            cache = Cache(self._directory / "cache.db", self._images.leases, self._images.snapshots)
            mounts = CacheMounts(self._directory / "mounts")
            mounts.remove_unfinished()
            self._workshop = Workshop(self._images, self._executor, cache, mounts, self._scratch)
        return self._workshop

    def close(self) -> None:
        if self._workshop is not None:
            self._workshop.cache.close()

    async def build(
        self,
        context: AsyncIterator[bytes],
        options: Options,
        progress: Progress,
        ready: Callable[[], Awaitable[None]] = at_once,
    ) -> Image:
        """The image; PROGRESS gets the classic builder's messages, and READY waits until it may have more.

        Cancelled, it stops its steps and leaves the cache sound. Raises DockerfileError, InvalidInput, NotFound, NotSupported, StepFailed,
        Unavailable.
        """
        tags = [parse_reference(tag).with_default_tag().familiar for tag in options.tags]
        transcript = Transcript(progress, ready, quiet=options.quiet)
        try:
            async with self._context(context, options) as tree:
                image = await self._solve(tree, options, transcript)
        except OSError as error:
            if error.errno in FULL:
                raise _full() from error
            raise
        except SystemFailure as error:
            if error.errno in FULL:
                raise _full() from error
            raise
        transcript.done(image.id, tags)
        return image

    def _context(self, context: AsyncIterator[bytes], options: Options) -> AbstractAsyncContextManager[Tree]:
        scratch = self.workshop.scratch
        if not options.remote:
            return unpacked(context, scratch)
        keep_git = options.arguments.get(KEEP_GIT) in ("1", "true")
        return fetched(options.remote, options.dockerfile, scratch, keep_git=keep_git)

    async def _solve(self, tree: Tree, options: Options, transcript: Transcript) -> Image:
        check_frontend(options.arguments.get(SYNTAX) or "")
        file = parse(read_dockerfile(tree, options.dockerfile), options.dockerfile)
        ignore = await leave_out_ignored(tree, options.dockerfile)
        arguments = Arguments(file, options.arguments)
        settings = checks.Settings.parse(options.arguments.get(CHECK) or file.check)
        build = Build(self.workshop, options, arguments, file.escape, tree, ignore, settings, arguments.epoch, time.time_ns())
        plan = Plan(file, arguments.globals)
        findings = checks.check_file(file, settings, arguments.globals)
        for finding in findings:
            transcript.warn(str(finding))
        if settings.fails:
            checks.refuse(findings)
        try:
            with self._images.working():
                image = await Solver(build, plan, transcript).solve()
                await self._images.settle()
        finally:
            if build.made:  # and so left something: mount points, a failed step's layer, what the cache held before
                await to_its_end(self._images.collect())
        return image

    async def prune(self, *, unused_since: float | None = None) -> dict[str, Any]:
        """POST /build/prune: {"CachesDeleted": [keys], "SpaceReclaimed": bytes}. UNUSED_SINCE is in seconds since the epoch."""
        keys, size = self.workshop.cache.prune(unused_since=unused_since)
        names, more = await self.workshop.mounts.prune(unused_since=unused_since)
        await self._images.collect()
        return {"CachesDeleted": [*keys, *names], "SpaceReclaimed": size + more}

    def rows(self) -> list[dict[str, Any]]:
        """As GET /system/df shows the cache."""
        return [*self.workshop.cache.rows(), *self.workshop.mounts.rows()]


def _full() -> Unavailable:
    return Unavailable("no space left on device: give some back with `docker builder prune`, `docker image prune` or `docker system prune`")
