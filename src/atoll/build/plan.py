"""Which stages a target needs, and in which order: the graph between FROM, COPY --from, RUN --mount=from, and the stages they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from atoll.build.mounts import origins
from atoll.build.state import SCRATCH
from atoll.build.syntax import Dockerfile, DockerfileError, Instruction, Stage
from atoll.build.words import Expander
from atoll.errors import InvalidInput

NUMBER_MAX = 6  # digits of a stage's number


class Plan:
    """`bases` has each stage's FROM with global ARGs filled in. CONTEXTS are the named ones, which hide stages."""

    def __init__(self, file: Dockerfile, values: dict[str, str], contexts: Mapping[str, str] | None = None) -> None:
        self._file = file
        self.contexts = contexts or {}
        self.bases: list[str] = []
        for stage in file.stages:
            try:
                base = Expander(values, file.escape).word(stage.base)
            except InvalidInput as error:
                raise DockerfileError(stage.origin.line, str(error)) from error
            if not base:
                raise DockerfileError(stage.origin.line, f"base name ({stage.base}) should not be blank")
            self.bases.append(base)

    def target(self, wanted: str) -> Stage:
        """The stage a build ends with: the named or numbered one, else the last. Raises InvalidInput."""
        if not wanted:
            return self._file.stages[-1]
        found = self.stage_named(wanted, len(self._file.stages))
        if found is None:
            raise InvalidInput(f'target stage "{wanted}" could not be found')
        return found

    def stage_named(self, name: str, before: int) -> Stage | None:
        """The stage of that name or number above stage BEFORE; the last of several with one name. A named context stands before it."""
        if name.lower() in self.contexts:
            return None
        for stage in reversed(self._file.stages[:before]):
            if stage.name and stage.name == name.lower():
                return stage
        if _is_number(name) and int(name) < before:
            return self._file.stages[int(name)]
        return None

    def needed(self, target: Stage) -> list[Stage]:
        """TARGET and all it needs, in the order of the file: a stage can only name earlier ones, so there are no cycles."""
        wanted, queue = set(), [target]
        while queue:
            stage = queue.pop()
            if stage.index not in wanted:
                wanted.add(stage.index)
                queue += self.uses(stage)
        return [stage for stage in self._file.stages if stage.index in wanted]

    def uses(self, stage: Stage) -> Iterator[Stage]:
        """The stages STAGE begins with and takes from. Raises DockerfileError."""
        base = self.base_stage(stage)
        if base is not None:
            yield base
        for instruction in stage.body:
            for name in _origins(instruction):
                found = self.stage_named(name, stage.index)
                if found is not None:
                    yield found
                elif name.lower() == stage.name:
                    raise DockerfileError(instruction.line, f"circular dependency detected on stage: {name}")
                elif _is_number(name):
                    raise DockerfileError(
                        instruction.line, f"invalid from flag value {name}: invalid context value: there is no such stage"
                    )

    def base_stage(self, stage: Stage) -> Stage | None:
        """The stage that STAGE's FROM names, if it names one."""
        base = self.bases[stage.index]
        return None if _is_number(base) or base.lower() == SCRATCH else self.stage_named(base, stage.index)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= NUMBER_MAX


def _origins(instruction: Instruction) -> list[str]:
    """The stages or images an instruction takes files from; those of ONBUILD are the affair of who builds on the image."""
    try:
        if instruction.name == "RUN":
            return origins(instruction)
        name = instruction.flag("from") if instruction.name == "COPY" else None
        if name and "$" in name:
            raise InvalidInput(f"'{name}' from doesn't support variable expansion: define an alias stage instead")
    except InvalidInput as error:
        raise DockerfileError(instruction.line, str(error)) from error
    return [name] if name else []
