"""Which stages a target needs, and in which order: the graph between FROM, COPY --from, and the stages they name."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.build.syntax import Dockerfile, DockerfileError, Stage
from atoll.build.words import Expander
from atoll.errors import InvalidInput


class Plan:
    """`bases` has each stage's FROM with global ARGs filled in."""

    def __init__(self, file: Dockerfile, values: dict[str, str]) -> None:
        self._file = file
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
        """The stage of that name or number above stage BEFORE; the last of several with one name."""
        for stage in reversed(self._file.stages[:before]):
            if stage.name and stage.name == name.lower():
                return stage
        if name.isdigit() and int(name) < before:
            return self._file.stages[int(name)]
        return None

    def needed(self, target: Stage) -> list[Stage]:
        """TARGET and all it needs, in the order of the file: a stage can only name earlier ones, so there are no cycles."""
        wanted, queue = set(), [target]
        while queue:
            stage = queue.pop()
            if stage.index not in wanted:
                wanted.add(stage.index)
                queue += self._uses(stage)
        return [stage for stage in self._file.stages if stage.index in wanted]

    def _uses(self, stage: Stage) -> Iterator[Stage]:
        base = self.stage_named(self.bases[stage.index], stage.index)
        if base is not None and not self.bases[stage.index].isdigit():
            yield base
        for instruction in stage.body:
            name = instruction.flag("from") if instruction.name == "COPY" else None
            if not name:
                continue
            if name.lower() == stage.name:
                raise DockerfileError(instruction.line, f"circular dependency detected on stage: {name}")
            found = self.stage_named(name, stage.index)
            if found is None and name.isdigit():
                raise DockerfileError(instruction.line, f"invalid from flag value {name}: invalid context value: there is no such stage")
            if found is not None:
                yield found

    def is_stage(self, stage: Stage) -> Stage | None:
        """The stage that STAGE's FROM names, if it names one."""
        base = self.bases[stage.index]
        return None if base.isdigit() else self.stage_named(base, stage.index)
