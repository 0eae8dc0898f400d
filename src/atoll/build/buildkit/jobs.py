"""One Solve of BuildKit's API: its session, its board, what its frontend has built, and where that goes.

Two ways lead here. `Control.Solve` may name the frontend itself; or it names none, and the client is a frontend of its own: it calls Solve
on the gateway (LLBBridge), any number of times, and Return with the result it wants exported. buildx and bake do the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from atoll.build import executor
from atoll.build.builder import Builder
from atoll.build.buildkit import messages
from atoll.build.buildkit.board import Board
from atoll.build.buildkit.cacheexport import INLINE
from atoll.build.buildkit.caches import open_imports
from atoll.build.buildkit.client import SessionClient
from atoll.build.buildkit.failures import as_rpc_error
from atoll.build.buildkit.frontend import Request, read_request
from atoll.build.buildkit.grpc import Code, RpcError
from atoll.build.buildkit.references import definition, with_inputs
from atoll.build.buildkit.sessions import Session
from atoll.build.buildkit.subrequests import answer
from atoll.build.buildkit.upload import Posted
from atoll.build.cacheimport import CacheImport
from atoll.build.solver import Built
from atoll.errors import AtollError, NotFound
from atoll.images import Image, ImageStore

KEPT_S = 10.0  # how long a build that is over may still be asked for its status
WAIT_S = 5.0  # and for how long before it has begun


class Job:
    """One. RUN is for sockets, CACHE the CacheOptions of the Solve."""

    def __init__(self, ref: str, session: Session, builder: Builder, images: ImageStore, posted: Posted, run: Path, cache: Any) -> None:
        self.ref = ref
        self.session = session
        self.board = Board(ref)
        self.images = images
        self._builder = builder
        self._posted = posted
        self._run = run
        self._returned: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._built: dict[str, Built] = {}
        self._fetched: list[Image] = []
        self._cache = cache
        self._imports: list[CacheImport] | None = None
        self._importing = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def frontend(self, name: str, attributes: Mapping[str, str], inputs: Mapping[str, Any]) -> Any:
        """Runs one to its result: an image of this job's, or the answer of a subrequest. Raises RpcError."""
        try:
            request = read_request(name, with_inputs(attributes, inputs))
            executor.credentials.set(self.session.credentials_of)
            shop = self._builder.workshop
            async with SessionClient(self.session, request, self.board, self._posted, shop, self._run) as client:
                if request.subrequest:
                    return await self._answer(request, client)
                inline = request.options.inline_cache or any(one.Type == INLINE for one in self._cache.Exports)
                options = replace(request.options, inline_cache=inline)
                try:
                    built = await self._builder.solve(client, options, self.board, await self._imported())
                finally:
                    self._fetched += client.fetched
        except AtollError as error:
            raise as_rpc_error(error, self.board) from error
        reference = f"{self.ref}/{len(self._built)}"
        self._built[reference] = built
        named = messages.Ref(**{"id": reference, "def": definition(built.image)})
        return messages.Result(ref=named, metadata={"containerimage.config": orjson.dumps(built.image.config)})

    async def _imported(self) -> list[CacheImport]:
        """Opened once, however often the client's frontend asks for a build."""
        async with self._importing:
            if self._imports is None:
                self._imports = await open_imports(self._cache.Imports, self.images, self.session, self.board, self._stack)
        return self._imports

    async def _answer(self, request: Request, client: SessionClient) -> Any:
        told = await answer(request.subrequest, self._builder, self.images, client, request.options, self.board)
        return messages.Result(metadata=told)

    def finish(self, request: Any) -> None:
        """The client's frontend has ended: with a result, or an error of its own."""
        if self._returned.done():
            return
        if request.HasField("error") and request.error.code:
            error = request.error
            self._returned.set_exception(RpcError(error.code, error.message, error.SerializeToString()))
        else:
            self._returned.set_result(request.result)

    async def result(self) -> Any:
        """What the client's frontend returns."""
        return await self._returned

    def built(self, result: Any) -> Built | None:
        """What RESULT stands for, None where it stands for no image. Raises NotFound."""
        if not result.ref.id:
            return None
        try:
            return self._built[result.ref.id]
        except KeyError:
            raise NotFound(f"no such reference: {result.ref.id}") from None

    async def end(self, kept: set[str]) -> None:
        """Removes the images that this job made or fetched, that are not in KEPT, and that nobody has named."""
        await self._stack.aclose()
        made = [built.image for built in self._built.values() if built.is_new]
        for one in [*made, *self._fetched]:
            image = self.images.find(one.id)
            if image is not None and image.id not in kept and not image.repo_tags:
                with contextlib.suppress(AtollError):  # a container uses it
                    await self.images.remove(image.id, prune=False)


class Jobs:
    """Those that run, and those that have just ended, by their refs."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def running(self, job: Job) -> AsyncIterator[None]:
        """Raises RpcError where a job of that ref is there."""
        if job.ref in self._jobs:
            raise RpcError(Code.ALREADY_EXISTS, f"job ID {job.ref} exists: a build's ref must be its own")
        self._jobs[job.ref] = job
        async with self._changed:
            self._changed.notify_all()
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(KEPT_S, self._jobs.pop, job.ref, None)

    async def get(self, ref: str) -> Job:
        """Raises NotFound where none of that ref begins in time."""
        try:
            async with asyncio.timeout(WAIT_S), self._changed:
                await self._changed.wait_for(lambda: ref in self._jobs)
        except TimeoutError:
            raise NotFound(f"no such job {ref}") from None
        return self._jobs[ref]
