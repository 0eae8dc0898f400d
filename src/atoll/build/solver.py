"""The solver: stages in order, each step from the cache or done, an image at the end.

A step's key is the digest of the parent's key, the instruction as it reads after expansion, and the content it copies; an equal key gives
the layer and the time that were made for it, so that a cached build gives the image it gave before, to the last byte.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atoll import units
from atoll.build import config as configs
from atoll.build.cache import Cache, Entry, key_of
from atoll.build.config import Config
from atoll.build.copying import Copy, copy
from atoll.build.executor import Executor, Step
from atoll.build.lexer import Logical
from atoll.build.options import Options
from atoll.build.parser import parse_instruction
from atoll.build.plan import Plan
from atoll.build.sources import Tree
from atoll.build.syntax import Dockerfile, DockerfileError, Instruction, Stage
from atoll.build.transcript import Transcript
from atoll.build.words import Expander
from atoll.errors import AtollError, InvalidInput, NotSupported
from atoll.images import Image, ImageStore, Layer, Platform
from atoll.kernel.detached import open_overlay

PREDEFINED = frozenset(
    name for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy") for name in (word, word.upper())
)
SCRATCH = "scratch"


class StepFailed(AtollError):
    """A RUN ended with another code than 0."""


@dataclass(frozen=True, slots=True)
class State:
    """What a stage has come to: its configuration, layers and history, and the key that stands for all of it."""

    key: str
    config: Config
    layers: tuple[Layer, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    created: str = ""
    image: Image | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    has_own_cmd: bool = False

    @property
    def chain(self) -> str | None:
        return self.layers[-1].chain_id if self.layers else None


class Solver:
    """One build. `solve` gives the image; what it prints goes to TRANSCRIPT."""

    def __init__(
        self,
        file: Dockerfile,
        context: Tree,
        options: Options,
        images: ImageStore,
        executor: Executor,
        cache: Cache,
        transcript: Transcript,
        scratch: Path,
    ) -> None:
        self._file = file
        self._context = context
        self._options = options
        self._images = images
        self._executor = executor
        self._cache = cache
        self._transcript = transcript
        self._scratch = scratch
        self._unused = {name for name in options.arguments if name not in PREDEFINED}
        self._platform = _platform_arguments()
        self._globals = self._global_arguments()
        self._plan = Plan(file, self._globals)
        self._states: dict[int, State] = {}

    async def solve(self) -> Image:
        """Raises DockerfileError, InvalidInput, NotFound, StepFailed, NotSupported."""
        if self._options.platform and self._options.platform not in ("linux", self._platform["TARGETPLATFORM"]):
            raise NotSupported(
                f"building for {self._options.platform} is not supported on this machine, which is {self._platform['TARGETPLATFORM']}"
            )
        target = self._plan.target(self._options.target)
        stages = self._plan.needed(target)
        self._transcript.total = sum(1 + len(stage.body) for stage in stages) + bool(self._options.labels)
        for stage in stages:
            self._states[stage.index] = await self._stage(stage)
        state = self._states[target.index]
        if self._options.labels:
            state = await self._add_labels(state)
        if self._unused:
            self._transcript.say(f"[Warning] One or more build-args {sorted(self._unused)} were not consumed\n")
        return self._image(state)

    def _global_arguments(self) -> dict[str, str]:
        values = dict(self._platform)
        for instruction in self._file.arguments:
            for name, default in self._argument_words(instruction, values):
                given = self._options.arguments.get(name)
                self._unused.discard(name)
                if given is not None:
                    values[name] = given
                elif default is not None:
                    values[name] = default
        return values

    def _argument_words(self, instruction: Instruction, values: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
        expander = Expander(values, self._file.escape)
        with _at(instruction):
            for word in expander.split(instruction.text):
                name, equals, value = word.partition("=")
                if not name:
                    raise InvalidInput("ARG names can not be blank")
                yield name, value if equals else None

    async def _stage(self, stage: Stage) -> State:
        self._transcript.step(stage.origin)
        with _at(stage.origin):
            state = await self._begin(stage)
        self._transcript.now(_shown(state))
        for trigger in state.config.get("OnBuild") or ():
            self._transcript.say(f"# Executing build trigger: {trigger}\n")
            state = await self._instruction(stage, state, parse_instruction(Logical(trigger, stage.origin.line)))
        if state.config.get("OnBuild"):
            state = replace(state, config={name: value for name, value in state.config.items() if name != "OnBuild"})
        for instruction in stage.body:
            self._transcript.step(instruction)
            state = await self._instruction(stage, state, instruction)
        return state

    async def _begin(self, stage: Stage) -> State:
        base = self._plan.bases[stage.index]
        earlier = self._plan.is_stage(stage)
        if earlier is not None:
            return replace(self._states[earlier.index], arguments={}, has_own_cmd=False)
        if base.lower() == SCRATCH:
            return State(key_of(SCRATCH), {})
        return _state_of(await self._base_image(base, stage.platform))

    async def _base_image(self, reference: str, platform: str = "") -> Image:
        image = None if self._options.pull else self._images.find(reference)
        if image is None:
            wanted = Expander(self._globals, self._file.escape).word(platform) or self._options.platform
            image = await self._executor.pull(reference, wanted or None, self._transcript.progress)
        return image

    async def _instruction(self, stage: Stage, state: State, instruction: Instruction) -> State:
        with _at(instruction):
            if instruction.name == "ARG":
                return self._arg(state, instruction)
            expander = self._expander(state)
            if instruction.name == "RUN":
                return await self._run(state, instruction)
            if instruction.name in ("COPY", "ADD"):
                return await self._copy(stage, state, instruction, expander)
            if instruction.name == "WORKDIR":
                return await self._workdir(state, instruction, expander)
            changed = configs.apply(state.config, instruction, expander)
            if instruction.name == "ENTRYPOINT" and not state.has_own_cmd:
                changed.pop("Cmd", None)  # the base image's CMD was meant for the base image's entrypoint
            shown = _nop(instruction, changed)
            entry = self._entry(state, [instruction.name, shown], instruction)
            done = replace(state, config=changed, has_own_cmd=state.has_own_cmd or instruction.name == "CMD")
            return self._after(done, entry, shown, None)

    def _expander(self, state: State) -> Expander:
        values = {**state.arguments, **configs.environment(state.config)}
        return Expander(values, self._file.escape)

    def _arg(self, state: State, instruction: Instruction) -> State:
        arguments = dict(state.arguments)
        values = {**arguments, **configs.environment(state.config)}
        for name, default in self._argument_words(instruction, values):
            self._unused.discard(name)
            given = self._options.arguments.get(name)
            inherited = self._globals.get(name)
            value = given if given is not None else default if default is not None else inherited
            if value is not None:
                arguments[name] = value
        entry = self._entry(state, ["ARG", instruction.text], instruction)
        return self._after(replace(state, arguments=arguments), entry, f"ARG {instruction.text}", None)

    async def _run(self, state: State, instruction: Instruction) -> State:
        network = self._run_flags(instruction)
        command = configs.command(state.config, instruction)
        proxies = {name: value for name, value in self._options.arguments.items() if name in PREDEFINED and value is not None}
        declared = {name: value for name, value in state.arguments.items() if name not in configs.environment(state.config)}
        shown = " ".join([f"|{len(declared)}", *(f"{name}={value}" for name, value in declared.items()), *command] if declared else command)
        # Proxies are the builder's surroundings, not the image's content: they are no part of the key.
        entry = self._cached(state, ["RUN", command, declared])
        if entry is None:
            environment = [f"{name}={value}" for name, value in {**proxies, **declared}.items()]
            step = Step(command, state.config, state.layers, environment, network, self._options.limits)
            layer = await self._do_run(state, step)
            entry = self._remember(state, ["RUN", command, declared], instruction, layer)
        return self._after(state, entry, shown, entry.chain)

    def _run_flags(self, instruction: Instruction) -> str:
        for name, _ in instruction.flags:
            if name in ("mount", "device"):
                raise NotSupported(f"RUN --{name} is not supported yet: line {instruction.line}")
        if (instruction.flag("security") or "sandbox") != "sandbox":
            raise NotSupported(f"RUN --security={instruction.flag('security')} is not supported: line {instruction.line}")
        network = instruction.flag("network") or "default"
        if network not in ("default", "none", "host"):
            raise InvalidInput(f"invalid network mode: {network}")
        return self._options.network if network == "default" else network

    async def _do_run(self, state: State, step: Step) -> Layer:
        output = self._transcript.output()
        async with self._executor.run(step, self._transcript.running, output.feed) as ran:
            output.flush()
            if ran.code:
                raise StepFailed(f"The command '{' '.join(step.command)}' returned a non-zero code: {ran.code}")
            layer = await self._images.snapshots.commit(ran.upper, state.chain, consume=True, ignore=ran.ignore)
        self._transcript.removed()
        return layer

    async def _copy(self, stage: Stage, state: State, instruction: Instruction, expander: Expander) -> State:
        copy_ = await self._copy_plan(stage, state, instruction, expander)
        digests = await asyncio.to_thread(lambda: [[source.path and source.name, tree.digest(source)] for tree, source in copy_.sources])
        what = [instruction.name, digests, copy_.target, copy_.owner, copy_.mode, copy_.unpack]
        entry = self._cached(state, what)
        if entry is None:
            layer = await self._write(state, copy_)
            entry = self._remember(state, what, instruction, layer)
        content = key_of(digests)[:32]
        return self._after(state, entry, _shown_nop(f"{instruction.name} multi:{content} in {copy_.target} "), entry.chain)

    async def _write(self, state: State, wanted: Copy) -> Layer:
        lowers = self._images.snapshots.overlay_lowers(state.layers)

        def work() -> Path:
            with _merged(lowers, "the stage") as below:
                return copy(wanted, below, lowers, self._scratch)

        return await self._images.snapshots.commit(await asyncio.to_thread(work), state.chain, consume=True)

    async def _copy_plan(self, stage: Stage, state: State, instruction: Instruction, expander: Expander) -> Copy:
        for name in ("link", "parents", "exclude", "checksum", "keep-git-dir"):
            # --link changes only how layers are shared, not what is copied.
            if name != "link" and instruction.flag(name) is not None:
                raise NotSupported(f"{instruction.name} --{name} is not supported yet: line {instruction.line}")
        words = [expander.word(word) for word in instruction.words] if instruction.words is not None else expander.split(instruction.text)
        heredocs = [heredoc for heredoc in instruction.heredocs if f"<<{heredoc.name}" in instruction.text or heredoc.name]
        if heredocs:
            raise NotSupported(f"here-documents in {instruction.name} are not supported yet: line {instruction.line}")
        if len(words) < 2:
            raise InvalidInput(
                f"{instruction.name} requires at least two arguments, but only one was provided. Destination could not be determined"
            )
        *sources, target = words
        if instruction.name == "ADD" and any(word.startswith(("http://", "https://", "git@", "git://")) for word in sources):
            raise NotSupported(f"ADD from a URL is not supported yet: line {instruction.line}. Fetch it in a RUN step")
        tree = await self._source_tree(stage, instruction)
        found = await asyncio.to_thread(lambda: tuple((tree, source) for word in sources for source in tree.find(word)))
        mode = instruction.flag("chmod")
        return Copy(
            found,
            _absolute(target, state.config),
            owner=expander.word(instruction.flag("chown") or ""),
            mode=_mode(expander.word(mode)) if mode else None,
            keep_owner=bool(instruction.flag("from")),
            unpack=instruction.name == "ADD" and instruction.flag("unpack") != "false",
        )

    async def _source_tree(self, stage: Stage, instruction: Instruction) -> Tree:
        name = instruction.flag("from")
        if not name:
            return self._context
        earlier = self._plan.stage_named(name, stage.index)
        layers = self._states[earlier.index].layers if earlier else (await self._base_image(name)).layers
        lowers = self._images.snapshots.overlay_lowers(layers)
        what = f"stage {name}" if earlier else f"image {name}"
        if not lowers:
            raise InvalidInput(f"COPY --from={name}: {what} is empty")
        return self._transcript.keep(Tree(await asyncio.to_thread(open_overlay, lowers), what))

    async def _workdir(self, state: State, instruction: Instruction, expander: Expander) -> State:
        path = _absolute(expander.word(instruction.text), state.config).rstrip("/") or "/"
        changed = {**state.config, "WorkingDir": path}
        lowers = self._images.snapshots.overlay_lowers(state.layers)

        def missing() -> bool:
            with _merged(lowers, "the stage") as below:
                return below is None or not below.exists(below.follow(path))

        layer = None
        entry = self._cached(state, ["WORKDIR", path])
        if entry is None:
            if await asyncio.to_thread(missing) and path != "/":
                layer = await self._make_directory(state, lowers, path)
            entry = self._remember(state, ["WORKDIR", path], instruction, layer)
        return self._after(replace(state, config=changed), entry, _shown_nop(f"WORKDIR {path}"), entry.chain)

    async def _make_directory(self, state: State, lowers: tuple[Path, ...], path: str) -> Layer:
        def work() -> Path:
            with _merged(lowers, "the stage") as below:
                target = below.follow(path) if below else path.strip("/")
                directory = copy(Copy((), path), None, lowers, self._scratch)
                (directory / target).mkdir(parents=True)
                return directory

        return await self._images.snapshots.commit(await asyncio.to_thread(work), state.chain, consume=True)

    async def _add_labels(self, state: State) -> State:
        text = " ".join(f"{name}={value}" for name, value in sorted(self._options.labels.items()))
        instruction = Instruction("LABEL", text, 0)
        self._transcript.step(instruction)
        config = {**state.config, "Labels": {**(state.config.get("Labels") or {}), **self._options.labels}}
        entry = self._entry(state, ["LABEL", dict(self._options.labels)], instruction)
        return self._after(replace(state, config=config), entry, _shown_nop(f"LABEL {text}"), None)

    def _key(self, state: State, what: Any) -> str:
        return key_of(state.key, what)

    def _cached(self, state: State, what: Any) -> Entry | None:
        """The cache's entry for the step; the transcript is told."""
        entry = None if self._options.no_cache else self._cache.find(self._key(state, what))
        if entry is not None:
            self._transcript.cached()
        return entry

    def _remember(self, state: State, what: Any, instruction: Instruction, layer: Layer | None) -> Entry:
        chain, size = (layer.chain_id, layer.size) if layer else (None, 0)
        return self._cache.add(self._key(state, what), str(instruction), units.timestamp(), chain, size)

    def _entry(self, state: State, what: Any, instruction: Instruction) -> Entry:
        """A step that makes no layer: its entry keeps only when it was first done."""
        return self._cached(state, what) or self._remember(state, what, instruction, None)

    def _after(self, state: State, entry: Entry, shown: str, chain: str | None) -> State:
        step: dict[str, Any] = {"created": entry.created, "created_by": shown}
        layers = state.layers
        if chain is None:
            step["empty_layer"] = True
        else:
            layers = (*layers, self._images.snapshots.get(chain))
        done = replace(state, key=entry.key, layers=layers, history=(*state.history, step), created=entry.created, image=None)
        self._transcript.now(_shown(done))
        return done

    def _image(self, state: State) -> Image:
        if state.image is not None:
            for tag in self._options.tags:
                self._images.tag(state.image.id, tag)
            return state.image
        document = {"created": state.created, "config": state.config, "history": list(state.history)}
        return self._images.create_image(document, state.layers, tags=self._options.tags)


def _state_of(image: Image) -> State:
    config = {name: value for name, value in image.runtime_config.items() if value not in (None, "", [], {})}
    history = tuple(image.config.get("history") or ())
    return State(key_of(image.id), config, image.layers, history, str(image.config.get("created") or ""), image)


@contextmanager
def _at(instruction: Instruction) -> Iterator[None]:
    """Errors of the file's own making get their line."""
    try:
        yield
    except DockerfileError:
        raise
    except InvalidInput as error:
        if not instruction.line or str(error).startswith("COPY failed"):
            raise
        raise DockerfileError(instruction.line, str(error)) from error


@contextmanager
def _merged(lowers: tuple[Path, ...], what: str) -> Iterator[Tree | None]:
    if not lowers:
        yield None
        return
    fd = open_overlay(lowers)
    try:
        yield Tree(fd, what)
    finally:
        os.close(fd)


def _absolute(path: str, config: Config) -> str:
    """PATH from the working directory on; a slash at its end stays."""
    full = path if path.startswith("/") else os.path.join(config.get("WorkingDir") or "/", path)
    clean = "/" + os.path.normpath(full).lstrip("/")
    return clean + "/" if path.endswith(("/", "/.")) or path == "." else clean


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        raise NotSupported(f"--chmod={text}: only octal modes are supported yet") from None
    if not 0 <= mode <= 0o7777:
        raise InvalidInput(f"invalid chmod parameter: '{text}'. it should be octal number between 0 and 07777")
    return mode


def _shown_nop(text: str) -> str:
    """How the classic builder writes steps that run nothing into the history."""
    return f"/bin/sh -c #(nop) {text}"


def _nop(instruction: Instruction, config: Config) -> str:
    if instruction.name in ("CMD", "ENTRYPOINT"):
        import json

        return _shown_nop(f" {instruction.name} {json.dumps(config[instruction.name.title()])}")
    return _shown_nop(f" {instruction.name} {instruction.text}")


def _shown(state: State) -> str:
    """Twelve digits that stand for the state: an image's id where it is one, else the step's key."""
    return state.image.short_id if state.image is not None else state.key[:12]


def _platform_arguments() -> dict[str, str]:
    """The platform ARGs, for building and target platform alike (Docker reference, "Automatic platform ARGs")."""
    platform = Platform.of_host()
    values = {"PLATFORM": str(platform), "OS": platform.os, "ARCH": platform.architecture, "VARIANT": platform.variant}
    return {f"{prefix}{name}": value for prefix in ("TARGET", "BUILD") for name, value in values.items()}


Report = Callable[[dict[str, Any]], None]
