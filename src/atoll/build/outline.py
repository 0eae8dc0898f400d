"""What a target can be given, told from the file alone: arguments, secrets and ssh agents, of its stages and all they take from.

An argument counts where a stage on the way declares it, or where FROM or another global that counts uses it. What a base image would set is
known only where the image is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from atoll.build import config as configs
from atoll.build import contexts
from atoll.build.arguments import Arguments, argument_words
from atoll.build.instructions import at
from atoll.build.mounts import CLIENTS, read_mounts
from atoll.build.plan import Plan
from atoll.build.state import SCRATCH
from atoll.build.syntax import Dockerfile, Instruction, Stage
from atoll.build.words import Expander
from atoll.images import ImageStore

T = TypeVar("T", "Argument", "Wanted")


@dataclass(frozen=True, slots=True)
class Argument:
    """`value` is what it would have, "" for none; `origin` declares it."""

    name: str
    value: str
    origin: Instruction

    @property
    def description(self) -> str:
        return self.origin.description(self.name)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A secret or an agent; `origin` is the RUN that mounts it."""

    name: str
    is_required: bool
    origin: Instruction


@dataclass(frozen=True, slots=True)
class Outline:
    """Of the stage `target`; each list in the order of the file."""

    target: Stage
    arguments: Sequence[Argument]
    secrets: Sequence[Wanted]
    agents: Sequence[Wanted]


@dataclass(frozen=True, slots=True)
class _Read:
    """What a stage ends with, and what it can be given itself."""

    values: dict[str, str]
    config: configs.Config
    arguments: dict[str, Argument]
    secrets: dict[str, Wanted]
    agents: dict[str, Wanted]


class Outliner:
    """Reads targets of one file."""

    def __init__(self, file: Dockerfile, plan: Plan, arguments: Arguments, images: ImageStore) -> None:
        self._plan = plan
        self._given = arguments
        self._escape = file.escape
        self._images = images
        self._globals: dict[str, Argument] = {}
        self._parts: dict[str, set[str]] = {}  # the globals that a global is made of
        for instruction in file.arguments:
            expander = Expander(arguments.globals, file.escape)
            for name, _ in argument_words(instruction, expander):
                self._globals[name] = Argument(name, arguments.globals.get(name, ""), instruction)
                self._parts[name] = set(expander.used)

    def read(self, target: Stage) -> Outline:
        """Of what several stages declare, the last counts. Raises DockerfileError."""
        arguments: dict[str, Argument] = {}
        secrets: dict[str, Wanted] = {}
        agents: dict[str, Wanted] = {}
        done: dict[int, _Read] = {}
        for stage in self._plan.needed(target):
            read = done[stage.index] = self._stage(stage, done)
            arguments |= read.arguments
            secrets |= read.secrets
            agents |= read.agents
        return Outline(target, _ordered(arguments.values()), _ordered(secrets.values()), _ordered(agents.values()))

    def _stage(self, stage: Stage, done: Mapping[int, _Read]) -> _Read:
        base = self._plan.base_stage(stage)
        before = done[base.index] if base is not None else None
        config = before.config if before else self._config_of(self._plan.bases[stage.index])
        read = _Read(dict(before.values) if before else {}, dict(config), {}, {}, {})
        with at(stage.origin):
            expander = Expander(self._given.globals, self._escape)
            for word in (stage.base, stage.platform):
                expander.word(word)
        for name in expander.used:
            self._take_global(name, read)
        for instruction in stage.body:
            with at(instruction):
                self._instruction(instruction, read)
        return read

    def _config_of(self, base: str) -> configs.Config:
        if base.lower() == SCRATCH or contexts.layout(base, self._plan.contexts) is not None:
            return {}
        image = self._images.find(contexts.shown(base, self._plan.contexts))
        return image.runtime_config if image is not None else {}

    def _take_global(self, name: str, read: _Read) -> None:
        """One of the file's own, and what it is made of."""
        found = self._globals.get(name)
        if found is not None and name not in read.arguments:
            read.arguments[name] = found
            for part in self._parts[name]:
                self._take_global(part, read)

    def _instruction(self, instruction: Instruction, read: _Read) -> None:
        expander = Expander({**read.values, **configs.environment(read.config)}, self._escape)
        match instruction.name:
            case "ARG":
                self._argument(instruction, expander, read)
            case "ENV":
                read.config.update(configs.apply(read.config, instruction, expander)[0])
            case "RUN":
                for mount in read_mounts(instruction, expander, read.config.get("WorkingDir") or "/"):
                    if mount.kind in CLIENTS:
                        found = read.secrets if mount.kind == "secret" else read.agents
                        found[mount.id] = Wanted(mount.id, mount.required, instruction)

    def _argument(self, instruction: Instruction, expander: Expander, read: _Read) -> None:
        """One without a value of its own is the global of that name; those every build has are no parameters."""
        values = self._given.declared(instruction, read.values, configs.environment(read.config))
        for name, default in argument_words(instruction, expander):
            if default is not None or self._given.is_given(name):
                read.arguments[name] = Argument(name, values.get(name, ""), instruction)
            elif name in self._globals:
                self._take_global(name, read)
            elif name not in self._given.globals:
                read.arguments[name] = Argument(name, "", instruction)
        read.values.update(values)


def _ordered(found: Iterable[T]) -> list[T]:
    return sorted(found, key=lambda one: one.origin.line)
