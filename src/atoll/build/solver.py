"""The solver: the stages a target needs, side by side, each waiting only for the stages it takes from; an image at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from atoll.build import contexts, state
from atoll.build.cacheconfig import write_inline
from atoll.build.instructions import at, perform
from atoll.build.parser import parse_trigger
from atoll.build.plan import Plan
from atoll.build.state import SCRATCH, State
from atoll.build.syntax import Instruction, Stage
from atoll.build.trail import Trail
from atoll.build.voices import Narrator, Part, Voice
from atoll.build.words import Expander
from atoll.build.work import Build, Root, Site
from atoll.errors import NotSupported
from atoll.images import Image, Platform


@dataclass(frozen=True, slots=True)
class Built:
    """What a build has come to; `is_new` where no image was the same before. `key` is that of its last state, on the `trail`."""

    image: Image
    is_new: bool
    key: str
    trail: Trail


class Solver:
    """One build of one target. `solve` gives its image; NARRATOR hears how it goes."""

    def __init__(self, build: Build, plan: Plan, narrator: Narrator) -> None:
        self._build = build
        self._plan = plan
        self._narrator = narrator
        self._states: dict[int, asyncio.Task[State]] = {}
        self._images: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self._steps = self._total = 0

    async def solve(self) -> Built:
        """Raises DockerfileError, InvalidInput, NotFound, StepFailed, NotSupported, Unavailable."""
        options = self._build.options
        target = self._plan.target(options.target)
        stages = self._plan.needed(target)
        self._total = sum(1 + len(stage.body) for stage in stages) + bool(options.labels)
        try:
            async with asyncio.TaskGroup() as group:
                for stage in stages:
                    self._start(group, stage, is_target=stage is target)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            await self._cancel_pulls()
        if unused := self._build.arguments.unused:
            self._narrator.warn(f"One or more build-args {unused} were not consumed")
        return self._image(self._states[target.index].result())

    def _start(self, group: asyncio.TaskGroup, stage: Stage, *, is_target: bool = False) -> None:
        base = contexts.shown(self._plan.bases[stage.index], self._build.options.contexts)
        begins_with_stage = self._plan.base_stage(stage) is not None
        total = max(self._total, self._steps + 1 + len(stage.body))
        voice = self._narrator.voice(Part(stage, base, begins_with_stage, self._steps + 1, total))
        self._steps += 1 + len(stage.body)
        work = self._stage(group, stage, voice, is_target=is_target)
        self._states[stage.index] = group.create_task(work, name=f"build stage {stage.name or stage.index}")

    async def _cancel_pulls(self) -> None:
        for task in self._images.values():
            task.cancel()
        await asyncio.gather(*self._images.values(), return_exceptions=True)

    async def _stage(self, group: asyncio.TaskGroup, stage: Stage, voice: Voice, *, is_target: bool) -> State:
        try:
            voice.step(stage.origin)
            with at(stage.origin):
                done = await self._begin(stage, voice)
                done = replace(done, is_fresh=done.is_fresh or stage.name in self._build.options.uncached)
            voice.now(done.image_id)
            site = Site(self._build, voice, lambda name: self._root(group, stage, name, voice))
            done = await self._triggers(site, stage, done)
            for instruction in stage.body:
                voice.step(instruction)
                done = await perform(site, done, instruction)
                voice.now(done.image_id)
            if is_target and self._build.options.labels:
                done = await self._labels(site, done)
        except Exception as error:
            voice.fail(error)  # one that is only cancelled has nothing to tell
            raise
        voice.finish()
        return done

    async def _triggers(self, site: Site, stage: Stage, done: State) -> State:
        triggers = done.config.get("OnBuild") or ()
        if not triggers:
            return done
        done = replace(done, config={name: value for name, value in done.config.items() if name != "OnBuild"}, image=None)
        site.voice.say(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        for trigger in triggers:
            instruction = parse_trigger(trigger, stage.origin.line)
            site.voice.trigger(instruction)
            done = await perform(site, done, instruction)
            site.voice.now(done.image_id)
        return done

    async def _begin(self, stage: Stage, voice: Voice) -> State:
        base = self._plan.bases[stage.index]
        earlier = self._plan.base_stage(stage)
        if earlier is not None:
            # ARGs come along; a CMD of the stage before counts as inherited, as that of an image would.
            return replace(await self._result(earlier), has_own_cmd=False)
        if base.lower() == SCRATCH:
            return state.of_nothing({"WorkingDir": "/"} if self._build.options.like_buildkit else {})
        platform = Expander(self._build.arguments.globals, self._build.escape).word(stage.platform) or self._build.options.platform
        return state.of_image(await self._base_image(base, platform, voice))

    async def _result(self, stage: Stage) -> State:
        """The state a stage ends with. Shielded: a stage may be given up without those it waits for."""
        return await asyncio.shield(self._states[stage.index])

    async def _root(self, group: asyncio.TaskGroup, stage: Stage, name: str, voice: Voice) -> Root:
        earlier = self._plan.stage_named(name, stage.index)
        if earlier is not None:
            if earlier.index not in self._states:  # only a trigger of ONBUILD has asked for it
                self._start(group, earlier)
            return Root(f"stage {name}", (await self._result(earlier)).layers)
        local = contexts.local(name, self._build.options.contexts)
        if local is not None:
            return Root(f"the named context {name}", tree=await self._build.client.directory(local))
        return Root(f"image {name}", (await self._base_image(name, self._build.options.platform, voice)).layers)

    async def _base_image(self, reference: str, platform: str, voice: Voice) -> Image:
        """Fetched once for each build, whichever stages want it. Raises NotSupported for a named context that is no image."""
        address = contexts.layout(reference, self._build.options.contexts)
        name, reference = reference, address or contexts.image(reference, self._build.options.contexts)
        check_platform(platform, self._build.arguments.platform["TARGETPLATFORM"])
        key = (reference, platform)
        if key not in self._images:
            fetch = self._fetch(reference, platform, voice) if address is None else self._build.client.image(address, name, voice.progress)
            self._images[key] = asyncio.create_task(fetch, name=f"image {reference} of a build")
        return await asyncio.shield(self._images[key])

    async def _fetch(self, reference: str, platform: str, voice: Voice) -> Image:
        shop = self._build.shop
        image = None if self._build.options.pull else shop.images.find(reference)
        return image or await shop.executor.pull(reference, platform or None, voice.progress)

    async def _labels(self, site: Site, done: State) -> State:
        """--label: as one more instruction at the end; with BuildKit part of the result, and no step."""
        labels = self._build.options.labels
        config = {**done.config, "Labels": {**(done.config.get("Labels") or {}), **labels}}
        if self._build.options.like_buildkit:
            return replace(done, config=config, image=None)
        text = " ".join(f"{name}={value}" for name, value in sorted(labels.items()))
        instruction = Instruction("LABEL", text, 0)
        site.voice.step(instruction)
        entry, _ = await self._build.entry(done, ["LABEL", dict(labels)], instruction, site.voice)
        told = self._build.history.metadata(instruction, done.config, config, text)
        done = done.after(entry.key, entry.created, told, config=config)
        site.voice.now(done.image_id)
        return done

    def _image(self, done: State) -> Built:
        images, tags = self._build.shop.images, self._build.options.tags
        trail = self._build.trail
        if done.image is None or self._build.options.like_buildkit:  # with BuildKit a configuration is always its own
            if self._build.options.inline_cache:
                done = replace(done, inline_cache=write_inline(trail.leading_to(done.key), done.layers))
            is_new = images.find(done.image_id) is None
            return Built(images.create_image(done.document, done.layers, tags=tags), is_new, done.key, trail)
        for tag in tags:
            images.tag(done.image.id, tag)
        return Built(done.image, is_new=False, key=done.key, trail=trail)


def check_platform(platform: str, ours: str) -> None:
    """Raises NotSupported for a machine that is not this one."""
    if not platform or platform.lower() == "local":
        return
    wanted = [*platform.lower().split("/"), "", ""]
    host = Platform.of_host()
    names = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
    architecture = names.get(wanted[1], wanted[1])
    if wanted[0] != host.os or architecture not in ("", host.architecture):
        raise NotSupported(f"building for {platform} is not supported on this machine, which is {ours}")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is the build's own, not the cancellation it brought to the others."""
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    return errors
