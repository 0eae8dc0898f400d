"""What a build takes from whoever wants it: the Dockerfile, the context, secrets; each when it is first needed.

The classic door has it all in one tar, or behind one URL; BuildKit's door asks the client's session (buildkit.client).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from atoll.build.arguments import KEEP_GIT
from atoll.build.context import fetched, leave_out_ignored, read_dockerfile, unpacked
from atoll.build.ignore import Ignore
from atoll.build.options import Options
from atoll.build.sources import Tree
from atoll.errors import NotFound, NotSupported
from atoll.images import Image, Progress

ONE_CONTEXT = "this way of building has but one context"
SOCKET = "agent"  # the name of an agent's socket in its directory


class Secrets(Protocol):
    """What only the client may give, and no layer, history, log or cache key may keep."""

    async def secret(self, name: str) -> bytes | None:
        """None where the client has none of that name."""
        ...

    def agent(self, name: str) -> AbstractAsyncContextManager[Path | None]:
        """A socket of the client's ssh agent, for as long as the block runs; None where it offers none."""
        ...


class Client(Protocol):
    """One build's."""

    @property
    def secrets(self) -> Secrets: ...

    async def dockerfile(self) -> bytes:
        """Asked for first. Raises NotFound, InvalidInput."""
        ...

    async def ignore(self) -> Ignore:
        """What stays behind of the context; asked for once, before the context."""
        ...

    def expect(self, paths: Sequence[str] | None) -> None:
        """Only these paths of the context, wildcards among them, will be needed; None for all. Told before the context is asked for."""
        ...

    async def context(self) -> Tree:
        """The build context. Raises InvalidInput, Unavailable."""
        ...

    async def directory(self, name: str) -> Tree:
        """A named context that lies with the client. Raises NotFound."""
        ...

    async def image(self, address: str, name: str, progress: Progress) -> Image:
        """The image at ADDRESS, in an OCI layout that lies with the client; NAME is the context's. Raises NotFound, InvalidInput."""
        ...


class NoSecrets:
    """Of a client that opened no session."""

    async def secret(self, name: str) -> bytes | None:
        raise NotSupported(
            f"RUN --mount=type=secret needs a client's session, which this way of building has not: give {name} with --secret"
        )

    def agent(self, name: str) -> AbstractAsyncContextManager[Path | None]:
        raise NotSupported(f"RUN --mount=type=ssh needs a client's session, which this way of building has not: give {name} with --ssh")


class WholeContext:
    """All of it has come already."""

    def __init__(self, tree: Tree, dockerfile: str, secrets: Secrets) -> None:
        self._tree = tree
        self._dockerfile = dockerfile
        self.secrets = secrets

    async def dockerfile(self) -> bytes:
        return read_dockerfile(self._tree, self._dockerfile)

    async def ignore(self) -> Ignore:
        return await leave_out_ignored(self._tree, self._dockerfile)

    def expect(self, paths: Sequence[str] | None) -> None:
        """It has come already."""

    async def context(self) -> Tree:
        return self._tree

    async def directory(self, name: str) -> Tree:
        raise NotFound(f"the named context {name} is not there: {ONE_CONTEXT}")

    async def image(self, address: str, name: str, progress: Progress) -> Image:
        raise NotFound(f"the named context {name} is not there: {ONE_CONTEXT}")


@asynccontextmanager
async def whole(context: AsyncIterator[bytes], options: Options, scratch: Path, secrets: Secrets) -> AsyncIterator[Client]:
    """The client that sends CONTEXT, a tar, or names a URL for it. Raises InvalidInput, NotFound, Unavailable."""
    async with _tree(context, options.remote, options.dockerfile, scratch, options.arguments) as tree:
        yield WholeContext(tree, options.dockerfile, secrets)


def _tree(
    context: AsyncIterator[bytes], remote: str, dockerfile: str, scratch: Path, arguments: Mapping[str, str | None]
) -> AbstractAsyncContextManager[Tree]:
    if not remote:
        return unpacked(context, scratch)
    return fetched(remote, dockerfile, scratch, keep_git=arguments.get(KEEP_GIT) in ("1", "true"))
