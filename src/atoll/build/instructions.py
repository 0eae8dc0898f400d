"""One instruction at a time: the state before it to the state after it.

RUN and the copies have modules of their own; WORKDIR, which may make a directory, and all that only changes the configuration are here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from atoll.build import config as configs
from atoll.build.arguments import argument_words
from atoll.build.checks import undefined_variables, workdir_is_relative
from atoll.build.copying import missing_ways, owner_of
from atoll.build.copystep import absolute, copy_files
from atoll.build.newlayer import layer_of
from atoll.build.running import run
from atoll.build.sources import merged_tree
from atoll.build.state import State
from atoll.build.syntax import DockerfileError, Instruction
from atoll.build.work import Site
from atoll.errors import InvalidInput
from atoll.images import Layer
from atoll.images.tar import Kind
from atoll.images.threads import in_thread

EXPANDED = frozenset({"ADD", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR", "HEALTHCHECK"})


async def perform(site: Site, state: State, instruction: Instruction) -> State:
    """STATE after INSTRUCTION. Raises DockerfileError for what is wrong with the file, and what the instruction's own module does."""
    with at(instruction):
        if instruction.name in EXPANDED:
            for finding in undefined_variables(instruction, state.variables, site.build.escape):
                site.warn(finding)
        match instruction.name:
            case "RUN":
                return await run(site, state, instruction)
            case "COPY" | "ADD":
                return await copy_files(site, state, instruction)
            case "WORKDIR":
                return await _workdir(site, state, instruction)
            case "ARG":
                return await _arg(site, state, instruction)
            case "MAINTAINER":
                return await _maintainer(site, state, instruction)
        return await _metadata(site, state, instruction)


async def _metadata(site: Site, state: State, instruction: Instruction) -> State:
    changed, text = configs.apply(state.config, instruction, site.build.expander(state))
    if instruction.name == "ENTRYPOINT" and not state.has_own_cmd:
        changed.pop("Cmd", None)  # the base image's CMD was meant for the base image's entrypoint
    if instruction.name == "CMD" and site.build.options.like_buildkit:
        changed["ArgsEscaped"] = True  # of no consequence but on Windows, and in the configuration's digest
    told = site.build.history.metadata(instruction, state.config, changed, text)
    # The configuration itself, since words can be read two ways: ENV A="1 B=2" is not ENV A=1 B=2.
    entry, _ = await site.build.entry(state, [instruction.name, changed], instruction, site.voice)
    done = replace(state, has_own_cmd=state.has_own_cmd or instruction.name == "CMD")
    return done.after(entry.key, entry.created, told, config=changed)


async def _maintainer(site: Site, state: State, instruction: Instruction) -> State:
    told = site.build.history.metadata(instruction, state.config, state.config, instruction.text)
    entry, _ = await site.build.entry(state, ["MAINTAINER", instruction.text], instruction, site.voice)
    return replace(state, author=instruction.text).after(entry.key, entry.created, told)


async def _arg(site: Site, state: State, instruction: Instruction) -> State:
    arguments = site.build.arguments.declared(instruction, state.arguments, state.environment)
    names = [name for name, _ in argument_words(instruction, site.build.expander(replace(state, arguments=arguments)))]
    entry, _ = await site.build.entry(state, ["ARG", instruction.text], instruction, site.voice)
    done = replace(state, arguments=arguments, asked=tuple(dict.fromkeys((*state.asked, *names))))
    return done.after(entry.key, entry.created, site.build.history.argument(instruction, done, names))


async def _workdir(site: Site, state: State, instruction: Instruction) -> State:
    build = site.build
    word = build.expander(state).word(instruction.text)
    site.warn(workdir_is_relative(instruction, word, is_known=bool(state.config.get("WorkingDir"))))
    path = absolute(word, state.config).rstrip("/") or "/"
    lowers = build.lowers(state.layers)
    like_buildkit = build.options.like_buildkit
    owner = state.config.get("User") or "" if like_buildkit else ""  # the classic builder's directories are root's

    async def make() -> Layer | None:
        directory = await in_thread(lambda: _made(path, owner, lowers, build.shop.scratch, build.begun_ns))
        if directory is None and like_buildkit and path != "/":
            directory = await in_thread(lambda: layer_of([], (), build.shop.scratch, build.begun_ns))
        return await build.commit(directory, state) if directory is not None else None

    what = ["WORKDIR", path, like_buildkit, owner] if like_buildkit else ["WORKDIR", path]
    entry, layer = await build.entry(state, what, instruction, site.voice, make)
    told = build.history.workdir(state.config, path)
    return state.after(entry.key, entry.created, told, layer, {**state.config, "WorkingDir": path})


def _made(path: str, owner: str, lowers: tuple[Path, ...], scratch: Path, now_ns: int) -> Path | None:
    """A layer with the directory, and those on the way to it; None where it is there, links followed. Blocks.

    Raises InvalidInput where a file stands there, or OWNER is nobody the stage knows.
    """
    target = path.strip("/")
    with ExitStack() as stack:
        below = stack.enter_context(merged_tree(lowers, "the stage")) if lowers else None
        if below is not None:
            target = below.follow(path)
            if target and below.exists(target) and not below.is_directory(target):
                raise InvalidInput(f"cannot make the working directory {path}: {posixpath.join('/', target)} is a file")
        ways = missing_ways(below, target)
        if not ways:
            return None
        return layer_of([(way, Kind.DIRECTORY) for way in ways], lowers, scratch, now_ns, owner_of(owner, below))


@contextmanager
def at(instruction: Instruction) -> Iterator[None]:
    """Errors of the file's own making get their line."""
    try:
        yield
    except DockerfileError:
        raise
    except InvalidInput as error:
        if not instruction.line or str(error).startswith("COPY failed"):
            raise
        raise DockerfileError(instruction.line, str(error)) from error
