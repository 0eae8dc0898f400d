"""What a build tells as it goes, and to whom: the seam between the solver and the doors it is asked through.

A `Narrator` hears of one build and gives each stage a `Voice`. The classic stream (transcript) and BuildKit's status (buildkit.board) are
two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from atoll.build.checks import Finding
from atoll.build.syntax import Instruction, Stage


@dataclass(frozen=True, slots=True)
class Part:
    """A stage as it is told. `base` is the image or stage it begins with, "scratch" for nothing; `steps` counts all of the build's."""

    stage: Stage
    base: str
    begins_with_stage: bool
    first: int
    steps: int


class Output(Protocol):
    """Where a step's bytes go."""

    async def feed(self, data: bytes) -> None:
        """Returns when more may come."""
        ...

    def flush(self) -> None:
        """No more comes."""
        ...


class Voice(Protocol):
    """What is told of one stage. `step` begins an instruction, which ends with `now` or `fail`."""

    def step(self, instruction: Instruction) -> None: ...
    def trigger(self, instruction: Instruction) -> None:
        """The same, of one that ONBUILD has kept."""
        ...

    def now(self, image_id: str) -> None:
        """The stage would be this image, were it to end here."""
        ...

    def cached(self) -> None: ...
    def running(self, container: str) -> None: ...
    def removed(self) -> None: ...
    def output(self) -> Output: ...
    def say(self, text: str) -> None: ...
    def find(self, finding: Finding) -> None: ...
    def progress(self, message: dict[str, Any]) -> None:
        """Of a pull, as the Engine API has them."""
        ...

    def fail(self, error: Exception) -> None: ...
    def finish(self) -> None: ...


class Narrator(Protocol):
    """What is told of one build."""

    def voice(self, part: Part) -> Voice: ...
    def warn(self, text: str) -> None: ...
    def find(self, finding: Finding) -> None: ...
