"""A build from its context to its image: the one door behind the classic /build stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.build import checks
from atoll.build.arguments import CHECK, SYNTAX, Arguments
from atoll.build.cache import Cache
from atoll.build.cacheimport import CacheImport
from atoll.build.cachemounts import CacheMounts
from atoll.build.client import Client, NoSecrets, Secrets, whole
from atoll.build.executor import Executor
from atoll.build.keptcontexts import KeptContexts
from atoll.build.options import Options
from atoll.build.parser import check_frontend, parse
from atoll.build.plan import Plan
from atoll.build.solver import Built, Solver
from atoll.build.syntax import Dockerfile
from atoll.build.transcript import Transcript, at_once, short
from atoll.build.voices import Narrator
from atoll.build.wanted import wanted_paths
from atoll.build.work import Build, Workshop
from atoll.images import Image, ImageStore, Progress
from atoll.images import parse as parse_reference
from atoll.images.room import room
from atoll.images.threads import in_thread, to_its_end

if TYPE_CHECKING:
    from atoll.build.python.assemble import PythonOptions
    from atoll.build.python.wheelhouse import Wheelhouse


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
            contexts = KeptContexts(self._directory / "contexts")
            self._workshop = Workshop(self._images, self._executor, cache, mounts, contexts, self._scratch)
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
        secrets: Secrets | None = None,
    ) -> Image:
        """The image of a CONTEXT that comes whole; PROGRESS gets the classic builder's messages, and READY waits until it may have more.

        Raises what `solve` does.
        """
        tags = [parse_reference(tag).with_default_tag().familiar for tag in options.tags]
        transcript = Transcript(progress, ready, quiet=options.quiet)
        with room():
            async with whole(context, options, self.workshop.scratch, secrets or NoSecrets()) as client:
                image = (await self.solve(client, options, transcript)).image
        transcript.done(image.id, tags)
        return image

    async def solve(self, client: Client, options: Options, narrator: Narrator, imports: Sequence[CacheImport] = ()) -> Built:
        """The image of what CLIENT has, steps taken from IMPORTS where the builder's own cache has them not.

        Cancelled, it stops its steps and leaves the cache sound. Raises DockerfileError, InvalidInput, NotFound, NotSupported, StepFailed,
        Unavailable.
        """
        with room():
            file, arguments, settings = await _read(client, options)
            plan = Plan(file, arguments.globals, options.contexts)
            findings = _check(file, arguments, settings, narrator)
            if settings.fails:
                checks.refuse(findings)
            client.expect(wanted_paths(plan, plan.needed(plan.target(options.target)), self._images))
            ignore = await client.ignore()
            now = time.time_ns()
            build = Build(self.workshop, options, arguments, file.escape, client, ignore, settings, arguments.epoch, now, imports)
            return await self._solve(build, plan, narrator)

    async def check(self, client: Client, options: Options, narrator: Narrator) -> None:
        """Tells only what the file does that was hardly meant. Raises DockerfileError."""
        file, arguments, settings = await _read(client, options)
        Plan(file, arguments.globals, options.contexts)
        _check(file, arguments, settings, narrator)

    async def parsed(self, client: Client, options: Options) -> tuple[Dockerfile, Arguments]:
        """The file alone, with the arguments given to it. Raises DockerfileError."""
        file, arguments, _ = await _read(client, options)
        return file, arguments

    async def _solve(self, build: Build, plan: Plan, narrator: Narrator) -> Built:
        try:
            with self._images.working():
                built = await Solver(build, plan, narrator).solve()
                await self._images.settle()
        finally:
            if build.made:  # and so left something: mount points, a failed step's layer, what the cache held before
                await to_its_end(self._images.collect())
        return built

    async def build_python(self, context: AsyncIterator[bytes], options: PythonOptions, progress: Progress) -> Image:
        """The image of a Python project, without a Dockerfile. Raises what `atoll.build.python.assemble.build` does."""
        from atoll.build.python.assemble import build

        with room():
            image = await build(self.workshop, self._wheelhouse, context, options, progress)
        progress({"aux": {"ID": image.id}})
        progress({"stream": f"Successfully built {short(image.id)}\n"})
        for tag in options.tags:
            progress({"stream": f"Successfully tagged {parse_reference(tag).with_default_tag().familiar}\n"})
        return image

    @property
    def _wheelhouse(self) -> Wheelhouse:
        from atoll.build.python.wheelhouse import Wheelhouse

        return Wheelhouse(self._directory / "wheels")

    async def prune(self, *, unused_since: float | None = None) -> dict[str, Any]:
        """POST /build/prune: {"CachesDeleted": [keys], "SpaceReclaimed": bytes}. UNUSED_SINCE is in seconds since the epoch."""
        keys, size = self.workshop.cache.prune(unused_since=unused_since)
        names, more = await self.workshop.mounts.prune(unused_since=unused_since)
        contexts, sources = await self.workshop.contexts.prune(unused_since=unused_since)
        more += sources
        more += await in_thread(lambda: self._wheelhouse.prune(unused_since))
        await self._images.collect()
        return {"CachesDeleted": [*keys, *names, *contexts], "SpaceReclaimed": size + more}

    def rows(self) -> list[dict[str, Any]]:
        """As GET /system/df shows the cache."""
        return [*self.workshop.cache.rows(), *self.workshop.mounts.rows(), *self.workshop.contexts.rows()]


async def _read(client: Client, options: Options) -> tuple[Dockerfile, Arguments, checks.Settings]:
    check_frontend(options.arguments.get(SYNTAX) or "")
    file = parse(await client.dockerfile(), options.dockerfile)
    return file, Arguments(file, options.arguments), checks.Settings.parse(options.arguments.get(CHECK) or file.check)


def _check(file: Dockerfile, arguments: Arguments, settings: checks.Settings, narrator: Narrator) -> list[checks.Finding]:
    findings = checks.check_file(file, settings, arguments.globals)
    for finding in findings:
        narrator.find(finding)
    return findings
