"""What the steps of one build share, and the one way a step is done: from the cache, or made and put there.

A step's key is the digest of the parent's key, the instruction as it reads after expansion, and the content it reads; an equal key gives
the layer and the time that were made for it, so that a cached build gives the image it gave before, to the last byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import units
from atoll.build import checks
from atoll.build.arguments import Arguments
from atoll.build.cache import Cache, Entry, key_of
from atoll.build.cacheimport import CacheImport
from atoll.build.cachemounts import CacheMounts
from atoll.build.client import Client
from atoll.build.executor import Executor
from atoll.build.history import BuildKit, Classic, History
from atoll.build.ignore import Ignore
from atoll.build.keptcontexts import KeptContexts
from atoll.build.newlayer import clamp_times
from atoll.build.options import Options
from atoll.build.sources import LeaveOut, Source, Tree, merged_tree
from atoll.build.state import State
from atoll.build.syntax import Instruction
from atoll.build.trail import Passed, Trail
from atoll.build.voices import Voice
from atoll.build.words import Expander
from atoll.errors import AtollError
from atoll.images import ImageStore, Layer
from atoll.images.threads import in_thread

DIGESTS_MAX = 10_000


class StepFailed(AtollError):
    """A RUN ended with another code than 0."""

    def __init__(self, command: Sequence[str], code: int, *, out_of_memory: bool = False) -> None:
        told = " (it was killed for want of memory)" if out_of_memory else ""
        super().__init__(f"The command '{' '.join(command)}' returned a non-zero code: {code}{told}")
        self.command = command
        self.code = code
        self.out_of_memory = out_of_memory


@dataclass(frozen=True, slots=True)
class Root:
    """Where --from leads: a stage's or an image's layers, or a tree of the client's; `what` is what errors call it."""

    what: str
    layers: tuple[Layer, ...] = ()
    tree: Tree | None = None


@dataclass(frozen=True, slots=True)
class Workshop:
    """What outlives a build: stores, places, and digests of content that never changes."""

    images: ImageStore
    executor: Executor
    cache: Cache
    mounts: CacheMounts
    contexts: KeptContexts
    scratch: Path
    digests: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Build:
    """One build."""

    shop: Workshop
    options: Options
    arguments: Arguments
    escape: str
    client: Client
    ignore: Ignore
    checks: checks.Settings
    epoch: int | None
    begun_ns: int
    imports: Sequence[CacheImport] = ()
    trail: Trail = field(default_factory=Trail)
    done: set[str] = field(default_factory=set)  # keys this build has come through
    made: set[str] = field(default_factory=set)  # and those whose layers it made, or has tried to

    @property
    def now(self) -> str:
        """The time that steps and image bear: of the build's own choosing, where it is to be reproducible."""
        return units.timestamp(None if self.epoch is None else self.epoch * units.NS)

    @property
    def history(self) -> History:
        return BuildKit() if self.options.like_buildkit else Classic()

    def expander(self, state: State) -> Expander:
        return Expander(state.variables, self.escape)

    def lowers(self, layers: Sequence[Layer]) -> tuple[Path, ...]:
        return self.shop.images.snapshots.overlay_lowers(layers)

    async def entry(
        self,
        state: State,
        what: Any,
        instruction: Instruction,
        voice: Voice,
        make: Callable[[], Awaitable[Layer | None]] | None = None,
    ) -> tuple[Entry, Layer | None]:
        """The step WHAT (all that it depends on beside STATE): its cache entry and its layer. MAKE does it where nobody has yet.

        Steps of the same key wait for each other, whichever stage or build they belong to.
        """
        cache = self.shop.cache
        key = key_of(state.key, what, self.epoch)
        async with cache.turn(key):
            entry = None
            if key in self.done or not (self.options.no_cache or state.is_fresh):
                entry = cache.find(key) or await self._imported(key, state)
            if entry is not None:
                voice.cached()
            else:
                layer = None
                if make is not None:
                    self.made.add(key)
                    layer = await make()
                chain, size = (layer.chain_id, layer.size) if layer else (None, 0)
                entry = cache.add(key, str(instruction), self.now, chain, size)
        self.done.add(key)
        self.trail.add(Passed(entry, state.key, str(instruction)))
        return entry, self.shop.images.snapshots.get(entry.chain) if entry.chain else None

    async def _imported(self, key: str, state: State) -> Entry | None:
        """The step as another builder has done it, from now on in the cache here."""
        for one in self.imports:
            self.made.add(key)  # layers that came without their step are to be collected
            found = await one.find(key, state.chain)
            if found is not None:
                chain, size = (found.layer.chain_id, found.layer.size) if found.layer else (None, 0)
                return self.shop.cache.add(key, found.instruction, found.created, chain, size)
        return None

    async def commit(self, directory: Path, state: State, ignore: Sequence[str] = ()) -> Layer:
        """DIRECTORY, which is taken, as the layer above STATE."""
        epoch = self.epoch

        def work() -> Layer:
            if epoch is not None:
                clamp_times(directory, epoch)
            return self.shop.images.snapshots.adopt_now(directory, state.chain, ignore)

        return await in_thread(work)

    async def digest(self, tree: Tree, source: Source, layers: Sequence[Layer] = (), leave_out: LeaveOut | None = None) -> str:
        """Of what SOURCE is. With LAYERS, those TREE is merged from, it is remembered: they never change."""
        memory = self.shop.digests
        known = (layers[-1].chain_id, source.path) if layers and leave_out is None else None
        if known is not None and known in memory:
            return memory[known]
        found = await in_thread(lambda: tree.digest(source, leave_out))
        if known is not None:
            if len(memory) >= DIGESTS_MAX:
                memory.clear()
            memory[known] = found
        return found


@dataclass(frozen=True, slots=True)
class Site:
    """Where a step is done: its build, how its stage speaks, and what its --from leads to."""

    build: Build
    voice: Voice
    root_of: Callable[[str], Awaitable[Root]]

    async def tree_of(self, stack: AsyncExitStack, name: str | None) -> tuple[Tree, tuple[Layer, ...], tuple[Path, ...]]:
        """The tree that --from=NAME means, the context for none; the layers it is merged from, none for one of the client's; and the
        directories. It is there until STACK is closed.
        """
        root = await self.root_of(name) if name else Root("", tree=await self.build.client.context())
        if root.tree is not None:
            assert root.tree.place is not None
            return root.tree, (), (root.tree.place,)
        lowers = self.build.lowers(root.layers)
        return await in_thread(lambda: stack.enter_context(merged_tree(lowers, root.what))), root.layers, lowers

    def warn(self, finding: checks.Finding | None) -> None:
        """Raises InvalidInput where the file asks for warnings to be errors."""
        if finding is not None and self.build.checks.wants(finding.rule):
            self.voice.find(finding)
            if self.build.checks.fails:
                checks.refuse([finding])
