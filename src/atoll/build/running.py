"""RUN: a command in a container of the stage's state, and what it changed as a layer.

Mounts are no part of the layer, nor are the places they are mounted on: where the stage has no such directory, one stands in a layer of
the step's own between the stage's layers and what the command writes.
"""

from __future__ import annotations

import posixpath
import re
import stat
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.build import config as configs
from atoll.build import history
from atoll.build.copying import Copy, Piece, copy
from atoll.build.executor import Bind, Memory, Merged, Step, StepMount
from atoll.build.mounts import Mount, read_mounts
from atoll.build.newlayer import layer_of
from atoll.build.sources import Source, Tree, merged_tree
from atoll.build.state import State
from atoll.build.syntax import Instruction
from atoll.build.threads import in_thread
from atoll.build.work import Site, StepFailed
from atoll.errors import InvalidInput, NotSupported
from atoll.images import Layer
from atoll.images.tar import Kind

ALONE = re.compile(r"\d*<<-?(?:\"[^\"]+\"|'[^']+'|[^\s<>\"'|&;()]+)$")
SCRIPTS = "/dev/pipes"  # where the reference builder has them too
KERNELS = ("/dev", "/proc", "/sys")  # file systems of the container's own, where mount points leave no trace
NETWORKS = frozenset({"default", "none", "host"})


@dataclass(frozen=True, slots=True)
class Script:
    """A here-document that is a program, by its first line."""

    target: str
    content: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A mount whose source is known: what it depends on, and how to have it mounted."""

    mount: Mount
    digest: str
    tree: Tree | None = None
    source: Source | None = None
    lowers: tuple[Path, ...] = ()


async def run(site: Site, state: State, instruction: Instruction) -> State:
    """STATE after a RUN. Raises StepFailed, InvalidInput, NotSupported, and what starting a container raises."""
    build = site.build
    network = _network(site, state, instruction)
    command, script = read_command(state.config, instruction)
    mounts = read_mounts(instruction, build.expander(state), state.config.get("WorkingDir") or "/")
    async with AsyncExitStack() as stack:
        found = [await _find(site, stack, mount) for mount in mounts]
        what: list[Any] = ["RUN", command, state.declared]
        if mounts or script or network != build.options.network:
            what += [[(_identity(one.mount), one.digest) for one in found], script and script.content, network]

        async def make() -> Layer:
            return await _make(
                site, state, Step(command, state.config, state.layers, _environment(site, state), network, {}), found, script
            )

        entry, layer = await build.entry(state, what, instruction, site.voice, make)
    return state.after(entry.key, entry.created, history.of_run(command, state.declared), layer)


def read_command(config: configs.Config, instruction: Instruction) -> tuple[list[str], Script | None]:
    """The words to run. A here-document that stands alone is the shell's script, or a program of its own where it begins with #!."""
    if instruction.words is None and len(instruction.heredocs) == 1 and ALONE.match(instruction.text):
        (heredoc,) = instruction.heredocs
        if heredoc.content.startswith("#!"):
            target = posixpath.join(SCRIPTS, posixpath.basename(heredoc.name))
            return [target], Script(target, heredoc.content)
        return [*configs.shell(config), heredoc.content], None
    return configs.command(config, instruction), None


def _network(site: Site, state: State, instruction: Instruction) -> str:
    word = site.build.expander(state).word
    if instruction.flag("device"):
        raise NotSupported(f"RUN --device={instruction.flag('device')} is not supported")
    security = word(instruction.flag("security") or "sandbox")
    if security not in ("sandbox", "insecure"):
        raise InvalidInput(f"security {security!r} is not valid")
    if security == "insecure":
        raise NotSupported("RUN --security=insecure is not allowed: a build's steps run without the rights of the host")
    network = word(instruction.flag("network") or "default")
    if network not in NETWORKS:
        raise InvalidInput(f"invalid network mode: {network}")
    return site.build.options.network if network == "default" else network


def _environment(site: Site, state: State) -> list[str]:
    return [f"{name}={value}" for name, value in {**site.build.arguments.proxies, **state.declared}.items()]


def _identity(mount: Mount) -> list[Any]:
    """What of a mount the result may depend on, apart from the content it brings."""
    cache = [mount.id, mount.sharing, mount.mode, mount.uid, mount.gid] if mount.kind == "cache" else []
    return [mount.kind, mount.target, mount.writable, mount.size, *cache]


async def _find(site: Site, stack: AsyncExitStack, mount: Mount) -> _Found:
    build = site.build
    if mount.kind == "tmpfs" or (mount.kind == "cache" and not mount.origin):
        return _Found(mount, "")
    if mount.origin:
        root = await site.root_of(mount.origin)
        lowers, layers = build.lowers(root.layers), root.layers
        tree = await in_thread(lambda: stack.enter_context(merged_tree(lowers, root.what)))
    else:
        tree, layers = build.context, ()
        assert tree.place is not None
        lowers = (tree.place,)
    path = tree.follow(mount.source)
    if path and not tree.exists(path):
        raise InvalidInput(f"mount source {mount.source} does not exist in {tree.what}")
    source = Source(path, posixpath.basename(path), not path or tree.is_directory(path))
    # All of a stage or an image is named by its layers: no need to read it.
    digest = layers[-1].chain_id if layers and not path else await build.digest(tree, source, layers)
    return _Found(mount, digest, tree, source, lowers)


async def _make(site: Site, state: State, step: Step, found: Sequence[_Found], script: Script | None) -> Layer:
    build, voice = site.build, site.voice
    async with AsyncExitStack() as stack:
        mounts = [await _realise(site, stack, one) for one in found]
        if script is not None:
            mounts.append(stack.enter_context(_script(script, build.shop.scratch)))
        layers = await _with_places(site, state, mounts)
        step = Step(step.command, step.config, layers, step.environment, step.network, build.options.limits, mounts)
        output = voice.output()
        async with build.shop.executor.run(step, voice.running, output.feed) as ran:
            output.flush()
            if ran.code:
                told = " (it was killed for want of memory)" if ran.out_of_memory else ""
                raise StepFailed(f"The command '{' '.join(step.command)}' returned a non-zero code: {ran.code}{told}")
            layer = await build.commit(ran.upper, state, ran.ignore)
    voice.removed()
    return layer


async def _realise(site: Site, stack: AsyncExitStack, found: _Found) -> StepMount:
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
def _script(script: Script, scratch: Path) -> Any:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", prefix="script-", dir=scratch, delete=False) as file:
        file.write(script.content)
    path = Path(file.name)
    path.chmod(0o755)
    try:
        yield Bind(script.target, path, writable=False)
    finally:
        path.unlink()


async def _with_places(site: Site, state: State, mounts: Sequence[StepMount]) -> tuple[Layer, ...]:
    """The stage's layers, and one above them with the mount points they lack."""
    build = site.build
    lowers = build.lowers(state.layers)

    def work() -> Path | None:
        missing = _missing(mounts, lowers)
        return layer_of(missing, lowers, build.shop.scratch, build.begun_ns) if missing else None

    outside = [mount for mount in mounts if not mount.target.startswith(tuple(f"{top}/" for top in KERNELS))]
    mounts = outside
    directory = await in_thread(work) if mounts else None
    if directory is None:
        return state.layers
    place = await in_thread(lambda: build.shop.images.snapshots.adopt_now(directory, state.chain))
    return (*state.layers, place)


def _missing(mounts: Sequence[StepMount], lowers: Sequence[Path]) -> list[tuple[str, Kind]]:
    kinds = [(mount, Kind.FILE if _is_file(mount) else Kind.DIRECTORY) for mount in mounts]
    if not lowers:
        return [(mount.target.strip("/"), kind) for mount, kind in kinds]
    with merged_tree(lowers, "the stage") as below:
        places = [(below.follow(mount.target), kind) for mount, kind in kinds]
        return [(path, kind) for path, kind in places if not below.exists(path)]


def _is_file(mount: StepMount) -> bool:
    if isinstance(mount, Bind):
        return stat.S_ISREG(mount.source.stat().st_mode)
    if isinstance(mount, Merged):
        with merged_tree(mount.lowers, "the mount") as tree:
            return not tree.is_directory(mount.path)
    return False
