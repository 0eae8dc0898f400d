"""RUN: a command in a container of the stage's state, and what it changed as a layer."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from atoll.build import config as configs
from atoll.build.clientmounts import Given, give
from atoll.build.executor import Step
from atoll.build.mounting import Found, find, realise, script, with_places
from atoll.build.mounts import CLIENTS, read_mounts
from atoll.build.state import State
from atoll.build.syntax import Instruction
from atoll.build.work import Site, StepFailed
from atoll.errors import InvalidInput, NotSupported
from atoll.images import Layer

ALONE = re.compile(r"\d*<<-?(?:\"[^\"]+\"|'[^']+'|[^\s<>\"'|&;()]+)$")
SCRIPTS = "/dev/pipes"  # where the reference builder has them too
NETWORKS = frozenset({"default", "none", "host"})


@dataclass(frozen=True, slots=True)
class Command:
    """The words to run. `program` is a here-document that stands at `place`, "" for none."""

    words: Sequence[str]
    network: str
    program: str = ""
    place: str = ""


async def run(site: Site, state: State, instruction: Instruction) -> State:
    """STATE after a RUN. Raises StepFailed, InvalidInput, NotSupported, and what starting a container raises."""
    build = site.build
    command = read_command(site, state, instruction)
    mounts = read_mounts(instruction, build.expander(state), state.config.get("WorkingDir") or "/", build.arguments.cache_namespace)
    async with AsyncExitStack() as stack:
        found = [await find(site, stack, mount) for mount in mounts]
        what = ["RUN", command.words, state.declared, command.network, command.program, [one.identity for one in found]]

        async def make() -> Layer:
            return await _make(site, state, command, found)

        entry, layer = await build.entry(state, what, instruction, site.voice, make)
    return state.after(entry.key, entry.created, build.history.run(command.words, state), layer)


def read_command(site: Site, state: State, instruction: Instruction) -> Command:
    """A here-document that stands alone is the shell's script, or a program of its own where it begins with #!."""
    network = _network(site, state, instruction)
    if instruction.words is None and len(instruction.heredocs) == 1 and ALONE.match(instruction.text):
        (heredoc,) = instruction.heredocs
        if heredoc.content.startswith("#!"):
            place = posixpath.join(SCRIPTS, posixpath.basename(heredoc.name))
            return Command([*configs.shell(state.config), place], network, heredoc.content, place)
        return Command([*configs.shell(state.config), heredoc.content], network)
    return Command(configs.command(state.config, instruction), network)


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


async def _make(site: Site, state: State, command: Command, found: Sequence[Found]) -> Layer:
    build, voice = site.build, site.voice
    environment = [f"{name}={value}" for name, value in {**build.arguments.proxies, **state.declared}.items()]
    async with AsyncExitStack() as stack:
        given = Given([await realise(site, stack, one) for one in found if one.mount.kind not in CLIENTS])
        for one in found:
            if one.mount.kind in CLIENTS:
                await give(site, stack, one.mount, given)
        mounts = given.mounts
        if command.program:
            mounts.append(stack.enter_context(script(command.place, command.program, build.shop.scratch)))
        layers = await with_places(build, state, mounts)
        step = Step(command.words, state.config, layers, environment, command.network, build.options.limits, mounts, given.secrets)
        output = voice.output()
        async with build.shop.executor.run(step, voice.running, output.feed) as ran:
            output.flush()
            if ran.code:
                raise StepFailed(command.words, ran.code, out_of_memory=ran.out_of_memory)
            layer = await build.commit(ran.upper, state, ran.ignore)
    voice.removed()
    return layer
