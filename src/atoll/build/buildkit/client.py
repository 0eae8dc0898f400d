"""The builder's `Client` over a session: Dockerfile, ignore file and context are fetched from the client when they are first needed.

Of the context only what the file's instructions can name is asked for, so that one of many gigabytes costs what is used of it; a Dockerfile
that copies nothing fetches nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Self

from atoll.build.arguments import EPOCH, KEEP_GIT
from atoll.build.buildkit.board import Board, Vertex
from atoll.build.buildkit.contentstore import ContentStore
from atoll.build.buildkit.filesync import Seen, tar_of
from atoll.build.buildkit.frontend import Request
from atoll.build.buildkit.sessions import Session
from atoll.build.buildkit.ssh import agent
from atoll.build.buildkit.upload import POSTED, Posted, is_upload, pulled
from atoll.build.context import IGNORE_FILE_MAX, fetched, leave_out_ignored, read_dockerfile, unpack_into, unpacked
from atoll.build.contexts import LAYOUT
from atoll.build.ignore import Ignore
from atoll.build.sources import CONTEXT, Tree, directory_tree
from atoll.build.work import Workshop
from atoll.errors import InvalidInput
from atoll.images import Image, Platform, Progress, Reference
from atoll.images.reference import is_digest
from atoll.images.threads import in_thread

IGNORE_FILE = ".dockerignore"
LAYOUTS = "oci:"  # what clients call the content store of a layout, the name they gave it behind it


class SessionSecrets:
    """Of a session."""

    def __init__(self, session: Session, run: Path) -> None:
        self._session = session
        self._run = run

    async def secret(self, name: str) -> bytes | None:
        return await self._session.secret(name)

    def agent(self, name: str) -> AbstractAsyncContextManager[Path | None]:
        return agent(self._session, name, self._run)


class SessionClient:
    """One build's. A context manager: what it fetched is there until the block ends."""

    def __init__(self, session: Session, request: Request, board: Board, posted: Posted, shop: Workshop, run: Path) -> None:
        self.secrets = SessionSecrets(session, run)
        self._session = session
        self._request = request
        self._board = board
        self._posted = posted
        self._scratch = shop.scratch
        self._kept = shop.contexts
        self._images = shop.images
        self.fetched: list[Image] = []  # images that were not here before, and are wanted for this build alone
        self._stack = AsyncExitStack()
        self._loads: dict[str, asyncio.Task[Tree]] = {}
        self._own_ignore: bytes | None = None  # <Dockerfile>.dockerignore
        self._excluded: list[str] = []
        self._expected: Sequence[str] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._loads.values():
            task.cancel()
        await asyncio.gather(*self._loads.values(), return_exceptions=True)
        await self._stack.aclose()

    async def dockerfile(self) -> bytes:
        file, directory = self._request.options.dockerfile, self._request.dockerfile_directory
        if not directory:  # it lies in the context that has to be fetched first
            data = read_dockerfile(await self.context(), file)
            with self._board.task(f"[internal] load build definition from {file}") as vertex:
                self._board.defined(file, data, vertex)
            return data
        with self._board.task(f"[internal] load build definition from {file}") as vertex:
            tree = await self._fetch(directory, vertex, "transferring dockerfile:", [file, f"{file}.dockerignore"])
            data = read_dockerfile(tree, file)
            self._own_ignore = _read(tree, f"{file}.dockerignore")
            self._board.defined(file, data, vertex)
        return data

    async def ignore(self) -> Ignore:
        if self._request.remote:
            return await leave_out_ignored(await self.context(), self._request.options.dockerfile)
        with self._board.task("[internal] load .dockerignore") as vertex:
            ignore = await self._ignore_of(self._request.context_directory, vertex, self._own_ignore)
        self._excluded = _patterns(ignore)
        return ignore

    async def _ignore_of(self, directory: str, vertex: Vertex, own: bytes | None = None) -> Ignore:
        if own is None:
            own = _read(await self._fetch(directory, vertex, "transferring context:", [IGNORE_FILE]), IGNORE_FILE)
        return Ignore.parse((own or b"").decode("utf-8", "replace"))

    def expect(self, paths: Sequence[str] | None) -> None:
        self._expected = paths

    async def context(self) -> Tree:
        return await self._loaded("", self._load_remote if self._request.remote else self._load_context)

    async def _load_context(self) -> Tree:
        with self._board.task("[internal] load build context") as vertex:
            return await self._update(
                self._request.context_directory, vertex, "transferring context:", self._expected or (), self._excluded
            )

    async def _load_remote(self) -> Tree:
        options, remote = self._request.options, self._request.remote
        if remote == POSTED:
            with self._board.task("[internal] load remote build context"):
                chunks = await self._stack.enter_async_context(self._posted.taken(self._board.ref))
                return await self._stack.enter_async_context(unpacked(chunks, self._scratch))
        if is_upload(remote):
            with self._board.task("[internal] load remote build context"):
                return await self._stack.enter_async_context(unpacked(pulled(self._session, remote), self._scratch))
        with self._board.task(f"[internal] load remote build context {remote}"):
            keep_git = options.arguments.get(KEEP_GIT) in ("1", "true")
            return await self._stack.enter_async_context(fetched(remote, options.dockerfile, self._scratch, keep_git=keep_git))

    async def directory(self, name: str) -> Tree:
        return await self._loaded(name, lambda: self._load_directory(name))

    async def image(self, address: str, name: str, progress: Progress) -> Image:
        store, _, digest = address.partition("@")
        if not is_digest(digest):
            raise InvalidInput(f"the named context {name} has no sha256 digest: {address}")
        before = {image.id for image in self._images.all()}
        content = ContentStore(self._session, LAYOUTS + store.partition(":")[0])
        reference = Reference(LAYOUT.rstrip(":/"), name, digest=digest)
        image = await self._images.remote.fetch_image(content, reference, Platform.of_host(), progress)
        if image.id not in before:
            self.fetched.append(image)
        return image

    async def _load_directory(self, name: str) -> Tree:
        with self._board.task(f"[context {name}] load from client") as vertex:
            ignore = await self._ignore_of(name, vertex)
            return await self._update(name, vertex, f"transferring {name}:", (), _patterns(ignore))

    async def _loaded(self, name: str, load: Callable[[], Coroutine[Any, Any, Tree]]) -> Tree:
        """Once for each build, whichever steps want it: one that is given up leaves it to the others."""
        if name not in self._loads:
            self._loads[name] = asyncio.create_task(load(), name=f"context {name} of a build")
        return await asyncio.shield(self._loads[name])

    async def _update(self, directory: str, vertex: Vertex, told: str, follow: Sequence[str], exclude: Sequence[str]) -> Tree:
        """What changed since the client last sent it; all of it where it has no name for what it sends, or another build is at it."""
        name = self._session.shared_key
        is_kept = name and EPOCH not in self._request.options.arguments  # a layer of one time would change the kept files' times
        kept = await self._stack.enter_async_context(self._kept.hold(name, directory, follow, exclude)) if is_kept else None
        if kept is None:
            return await self._fetch(directory, vertex, told, follow, exclude)
        seen, count = Seen(kept.known), 0

        def moved(total: int) -> None:
            nonlocal count
            count = total
            vertex.status(told, total)

        await unpack_into(kept.tree, tar_of(self._session.channel, directory, follow=follow, exclude=exclude, moved=moved, seen=seen))
        await in_thread(lambda: kept.close(seen.files, seen.directories))
        vertex.status(told, count, done=True)
        return self._stack.enter_context(directory_tree(kept.tree, CONTEXT))

    async def _fetch(self, directory: str, vertex: Vertex, told: str, follow: Sequence[str] = (), exclude: Sequence[str] = ()) -> Tree:
        total = 0

        def moved(count: int) -> None:
            nonlocal total
            total = count
            vertex.status(told, count)

        tar = tar_of(self._session.channel, directory, follow=follow, exclude=exclude, moved=moved)
        tree = await self._stack.enter_async_context(unpacked(tar, self._scratch))
        vertex.status(told, total, done=True)
        return tree


def _patterns(ignore: Ignore) -> list[str]:
    return [f"{'!' if one.negated else ''}{one.text}" for one in ignore.patterns]


def _read(tree: Tree, name: str) -> bytes | None:
    return tree.read(name, IGNORE_FILE_MAX) if tree.exists(name) else None
