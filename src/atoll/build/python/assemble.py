"""`atoll build --python`: base image, environment, wheels, code, each a layer, to one image.

A layer's key in the build cache is that of the layers beneath it and of its own content, so an edit of the code costs one layer, and a
changed lock the layers from the first changed wheel on.
"""

from __future__ import annotations

import asyncio
import math
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from atoll.build.cache import Entry, key_of
from atoll.build.config import DEFAULT_PATH, environment
from atoll.build.context import unpacked
from atoll.build.newlayer import new_layer
from atoll.build.python import project as projects
from atoll.build.python import target as targets
from atoll.build.python.locks import Wheel, choose
from atoll.build.python.project import Project
from atoll.build.python.target import Target
from atoll.build.python.wheel import PREFIX, Environment
from atoll.build.python.wheelhouse import Wheelhouse
from atoll.build.sources import Source, Tree, merged_tree
from atoll.build.work import Workshop
from atoll.errors import InvalidInput
from atoll.images import Image, Layer, Progress
from atoll.images.extract import Extractor, Policy
from atoll.images.threads import in_thread
from atoll.units import timestamp

FORMAT = 1  # part of every key: raised when the same wheel comes to give another layer
ALONE_MAX = 40  # wheels that all have a layer of their own
SMALL = 1 << 20  # bytes of a wheel that shares a layer where there are more
WHEEL_LAYERS_MAX = 80  # an image has at most 125, base and code included
MB = 1e6


@dataclass(frozen=True, slots=True)
class PythonOptions:
    """`base`: "" for the official image of the project's Python. `command`: what the image runs, else [project.scripts] says."""

    tags: Sequence[str] = ()
    base: str = ""
    command: str = ""
    extras: Sequence[str] = ()
    indexes: Sequence[str] = ()
    labels: dict[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False


class Assembly:
    """One build."""

    def __init__(self, shop: Workshop, house: Wheelhouse, options: PythonOptions, progress: Progress) -> None:
        self._shop = shop
        self._house = house
        self._options = options
        self._progress = progress
        self._layers: list[Layer] = []
        self._history: list[dict[str, Any]] = []
        self._created = ""
        self._key = ""

    async def build(self, context: AsyncIterator[bytes]) -> Image:
        """Raises InvalidInput, NotFound, Unavailable, DigestMismatch, LimitExceeded."""
        images = self._shop.images
        with images.working():
            async with unpacked(context, self._shop.scratch) as tree:
                project = projects.read_project(tree)
                runs, shown = projects.command(project, self._options.command)
                base = self._options.base or projects.default_base(tree, project)
                image = await self._base(base)
                target = await self._target(image, base)
                projects.check_python(project, target, base)
                self._say(f"{'base':40} {base}: {target}")
                wanted = await projects.locked(tree, project, target, self._options.extras, self._options.indexes, self._shop.scratch)
                self._layers, self._history = list(image.layers), list(image.config.get("history") or [])
                self._key = key_of("python", FORMAT, image.chain_id, target.interpreter)
                await self._step("environment", {"version": target.version}, lambda: self._environment(target))
                await self._wheels(choose(wanted, target), target)
                await self._code(tree, project, target)
            made = images.create_image(self._document(image, runs), self._layers, tags=self._options.tags)
            await images.settle()
        self._say(f"{'runs':40} {shown}")
        return made

    async def _base(self, name: str) -> Image:
        image = None if self._options.pull else self._shop.images.find(name)
        return image or await self._shop.executor.pull(name, None, self._progress)

    async def _target(self, image: Image, name: str) -> Target:
        async with AsyncExitStack() as stack:
            lowers = self._shop.images.snapshots.overlay_lowers(image)
            root = await in_thread(lambda: stack.enter_context(merged_tree(lowers, name)))
            return await in_thread(lambda: targets.find(root, environment(image.runtime_config), name))

    # layers --------------------------------------------------------------------------------------------------------------------------
    async def _environment(self, target: Target) -> Path:
        """The virtual environment, empty: pyvenv.cfg and bin/python (PEP 405)."""

        def work() -> Path:
            with new_layer(self._shop.scratch) as (directory, root), Extractor(root, Policy(), ()) as extractor:
                writer = Environment(extractor, target.short)
                home = posixpath.dirname(target.interpreter)
                lines = (f"home = {home}", "include-system-site-packages = false", f"version = {target.version}")
                writer.file(f"{PREFIX}/pyvenv.cfg", "".join(f"{line}\n" for line in lines).encode())
                writer.symlink(f"{PREFIX}/bin/python", target.interpreter)
                for name in ("python3", f"python{target.short}"):
                    writer.symlink(f"{PREFIX}/bin/{name}", "python")
                extractor.finish()
            return directory

        return await in_thread(work)

    async def _wheels(self, wheels: Sequence[Wheel], target: Target) -> None:
        fetches = {wheel: asyncio.create_task(self._house.get(wheel)) for wheel in wheels if not wheel.file.sha256}
        try:
            for group in _groups(wheels):
                digests = [wheel.file.sha256 or (await fetches[wheel]).name for wheel in group]
                key = {"wheels": digests, "python": target.short}
                if self._known(key) is None:
                    self._fetch_ahead(wheels, fetches)
                name = ", ".join(str(wheel.locked) for wheel in group)
                await self._step(name, key, partial(self._install, group, fetches, target))
        finally:
            for task in fetches.values():
                task.cancel()
            await asyncio.gather(*fetches.values(), return_exceptions=True)

    def _fetch_ahead(self, wheels: Sequence[Wheel], fetches: dict[Wheel, asyncio.Task[Path]]) -> None:
        """From the first layer that is not cached on, none will be."""
        for wheel in wheels:
            if wheel not in fetches:
                fetches[wheel] = asyncio.create_task(self._house.get(wheel))

    async def _install(self, group: Sequence[Wheel], fetches: dict[Wheel, asyncio.Task[Path]], target: Target) -> Path:
        files = [(await fetches[wheel], wheel) for wheel in group]

        def work() -> Path:
            with new_layer(self._shop.scratch) as (directory, root), Extractor(root, Policy(), ()) as extractor:
                writer = Environment(extractor, target.short)
                for path, wheel in files:
                    writer.install(path, wheel.file.name)
                extractor.finish()
            return directory

        return await in_thread(work)

    async def _code(self, tree: Tree, project: Project, target: Target) -> None:
        source = Source("", "", is_directory=True)
        digest = await in_thread(lambda: tree.digest(source, projects.NOT_CODE.excludes))
        lowers = self._shop.images.snapshots.overlay_lowers(self._layers)

        async def make() -> Path:
            return await in_thread(lambda: projects.code_layer(tree, project, target.short, lowers, self._shop.scratch))

        await self._step(f"{project.name or 'the directory'} in {projects.PLACE}", {"code": digest}, make)

    async def _step(self, name: str, what: dict[str, Any], make: Callable[[], Awaitable[Path]]) -> None:
        """One layer, from the cache or made by MAKE as a directory."""
        begun, cache = time.monotonic(), self._shop.cache
        key = key_of(self._key, what)
        async with cache.turn(key):
            entry = self._known(what)
            told = "cached"
            if entry is None:
                directory, parent = await make(), self._layers[-1].chain_id if self._layers else None
                layer = await in_thread(lambda: self._shop.images.snapshots.adopt_now(directory, parent))
                entry = cache.add(key, f"python: {name}", timestamp(), layer.chain_id, layer.size)
                told = f"{layer.size / MB:.1f} MB, {time.monotonic() - begun:.2f} s"
        assert entry.chain is not None, "every step here makes a layer"
        self._layers.append(self._shop.images.snapshots.get(entry.chain))
        self._history.append({"created": entry.created, "created_by": f"atoll build --python: {name}", "comment": "atoll"})
        self._created, self._key = entry.created, key
        self._say(f"{name[:60]:40} {told}")

    def _known(self, what: dict[str, Any]) -> Entry | None:
        return None if self._options.no_cache else self._shop.cache.find(key_of(self._key, what))

    # the image -----------------------------------------------------------------------------------------------------------------------
    def _document(self, base: Image, runs: dict[str, Any]) -> dict[str, Any]:
        config = {**base.runtime_config, **runs, "WorkingDir": projects.PLACE}
        config["Labels"] = {**(config.get("Labels") or {}), **self._options.labels} or None
        variables = environment(config)
        path = variables.get("PATH") or DEFAULT_PATH.removeprefix("PATH=")
        variables |= {"PATH": f"/{PREFIX}/bin:{path}", "VIRTUAL_ENV": f"/{PREFIX}"}
        config["Env"] = [f"{name}={value}" for name, value in variables.items()]
        config = {name: value for name, value in config.items() if value is not None}
        kept: dict[str, Any] = {name: base.config[name] for name in ("architecture", "os", "variant") if name in base.config}
        return {**kept, "created": self._created, "config": config, "history": self._history}

    def _say(self, text: str) -> None:
        self._progress({"stream": f"{text}\n"})


async def build(shop: Workshop, house: Wheelhouse, context: AsyncIterator[bytes], options: PythonOptions, progress: Progress) -> Image:
    """The image of the project whose tar CONTEXT is. Raises InvalidInput, NotFound, Unavailable, DigestMismatch, LimitExceeded."""
    try:
        return await Assembly(shop, house, options, progress).build(context)
    finally:
        await shop.images.collect()


def _groups(wheels: Sequence[Wheel]) -> list[list[Wheel]]:
    """One layer for each wheel; of very many, the small ones share."""
    if len(wheels) <= ALONE_MAX:
        return [[wheel] for wheel in wheels]
    large = [[wheel] for wheel in wheels if wheel.file.size >= SMALL]
    small = sorted((wheel for wheel in wheels if wheel.file.size < SMALL), key=lambda wheel: wheel.locked.name)
    room = WHEEL_LAYERS_MAX - len(large)
    if room < 1:
        raise InvalidInput(f"{len(large)} of the project's wheels are larger than {SMALL >> 20} MB: more than an image has layers for")
    size = max(2, math.ceil(len(small) / room))
    return [*large, *(small[at : at + size] for at in range(0, len(small), size))]
