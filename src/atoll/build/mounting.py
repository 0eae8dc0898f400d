"""What a RUN's mounts need to be there: their sources found and named by digest, directories held, and places to mount them on.

Mounts are no part of the layer, nor are the places they are mounted on: where the stage has no such directory, one stands in a layer of
the step's own between the stage's layers and what the command writes.
"""

from __future__ import annotations

import posixpath
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.build.copying import Copy, Piece, copy
from atoll.build.executor import Bind, Memory, Merged, Secret, StepMount
from atoll.build.mounts import CLIENTS, Mount
from atoll.build.newlayer import layer_of
from atoll.build.sources import Source, Tree, merged_tree
from atoll.build.state import State
from atoll.build.work import Build, Site
from atoll.errors import InvalidInput
from atoll.images import Layer
from atoll.images.tar import Kind
from atoll.images.threads import in_thread

KERNELS = ("/dev/", "/proc/", "/sys/")  # file systems of the container's own, where mount points leave no trace


@dataclass(frozen=True, slots=True)
class Found:
    """A mount whose source is known: `digest` says what it brings; `lowers` are the directories `tree` is merged from."""

    mount: Mount
    digest: str = ""
    tree: Tree | None = None
    source: Source | None = None
    lowers: tuple[Path, ...] = ()

    @property
    def identity(self) -> list[Any]:
        """What of it a step's result may depend on; what a cache holds is by its nature not among that, nor is a secret."""
        mount = self.mount
        if mount.kind in CLIENTS:
            return [mount.kind, mount.target, mount.id, mount.env, mount.mode, mount.uid, mount.gid]
        cache = [mount.id, mount.sharing, mount.mode, mount.uid, mount.gid] if mount.kind == "cache" else []
        return [mount.kind, mount.target, mount.writable, mount.size, self.digest, *cache]


async def find(site: Site, stack: AsyncExitStack, mount: Mount) -> Found:
    """Raises InvalidInput where the source does not exist."""
    build = site.build
    if mount.kind == "tmpfs" or mount.kind in CLIENTS or (mount.kind == "cache" and not mount.origin):
        return Found(mount)
    tree, layers, lowers = await site.tree_of(stack, mount.origin)
    path = tree.follow(mount.source)
    if path and not tree.exists(path):
        raise InvalidInput(f"mount source {mount.source} does not exist in {tree.what}")
    source = Source(path, posixpath.basename(path), not path or tree.is_directory(path))
    # All of a stage or an image is named by its layers: no need to read it.
    digest = layers[-1].chain_id if layers and not path else await build.digest(tree, source, layers)
    return Found(mount, digest, tree, source, lowers)


async def realise(site: Site, stack: AsyncExitStack, found: Found) -> StepMount:
    """The mount as the executor takes it; what it needs stands until STACK is closed."""
    mount = found.mount
    if mount.kind == "tmpfs":
        return Memory(mount.target, mount.size)
    if mount.kind == "cache":
        tree, source = found.tree, found.source

        def fill(directory: Path) -> None:
            assert tree is not None
            assert source is not None
            filled = copy(Copy("/", keep_owner=True), [Piece(tree, source)], None, (), directory.parent)
            directory.rmdir()
            filled.rename(directory)

        held = site.build.shop.mounts.hold(mount, found.digest, fill if tree is not None else None)
        return Bind(mount.target, await stack.enter_async_context(held), mount.writable)
    assert found.source is not None
    return Merged(mount.target, found.lowers, found.source.path, mount.writable)


@contextmanager
def script(target: str, content: str, scratch: Path) -> Iterator[Bind]:
    """A program of CONTENT at TARGET."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", prefix="script-", dir=scratch, delete=False) as file:
        file.write(content)
    path = Path(file.name)
    path.chmod(0o755)
    try:
        yield Bind(target, path, writable=False)
    finally:
        path.unlink()


async def with_places(build: Build, state: State, mounts: Sequence[StepMount]) -> tuple[Layer, ...]:
    """The stage's layers, and above them one with the mount points they lack."""
    lowers = build.lowers(state.layers)
    wanting = [mount for mount in mounts if not mount.target.startswith(KERNELS)]

    def work() -> Layer | None:
        missing = _missing(wanting, lowers)
        if not missing:
            return None
        directory = layer_of(missing, lowers, build.shop.scratch, build.begun_ns)
        return build.shop.images.snapshots.adopt_now(directory, state.chain)

    places = await in_thread(work) if wanting else None
    return state.layers if places is None else (*state.layers, places)


def _missing(mounts: Sequence[StepMount], lowers: Sequence[Path]) -> list[tuple[str, Kind]]:
    kinds = [(mount.target, Kind.FILE if _is_file(mount) else Kind.DIRECTORY) for mount in mounts]
    if not lowers:
        return [(target.strip("/"), kind) for target, kind in kinds]
    with merged_tree(lowers, "the stage") as below:
        places = [(below.follow(target), kind) for target, kind in kinds]
        return [(path, kind) for path, kind in places if not below.exists(path)]


def _is_file(mount: StepMount) -> bool:
    if isinstance(mount, Bind):
        return not stat.S_ISDIR(mount.source.stat().st_mode)
    if isinstance(mount, Merged):
        with merged_tree(mount.lowers, "the mount") as tree:
            return not tree.is_directory(mount.path)
    return isinstance(mount, Secret)
