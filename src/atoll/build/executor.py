"""What the solver needs of the engine: images from registries, and a place to run a step. The engine implements it over its containers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from atoll.images import Image, Layer, Progress

Output = Callable[[bytes], Awaitable[None]]
Credentials = Callable[[str], Awaitable[dict[str, Any] | None]]


async def no_credentials(domain: str) -> dict[str, Any] | None:
    return None


credentials: ContextVar[Credentials] = ContextVar("credentials", default=no_credentials)
"""Those of the build that runs in this context, asked for by a registry's domain: the solver's own words know nothing of registries."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory or file of the builder's own, at `target`."""

    target: str
    source: Path
    writable: bool


@dataclass(frozen=True, slots=True)
class Merged:
    """`path` of the merged directories `lowers` (top first), at `target`. What a writable one gets is thrown away with the step."""

    target: str
    lowers: Sequence[Path]
    path: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """A tmpfs at `target`; `size` in bytes, 0 for the kernel's own limit."""

    target: str
    size: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A file of DATA at `target`, which no disk ever has."""

    target: str
    data: bytes
    mode: int
    uid: int
    gid: int


StepMount = Bind | Merged | Memory | Secret


@dataclass(frozen=True, slots=True)
class Step:
    """A RUN: `command` in an image of `config` and `layers`, with ENVIRONMENT beside the config's own; `limits` are HostConfig fields.

    SECRETS are variables too, that nobody may read but the command.
    """

    command: Sequence[str]
    config: Mapping[str, Any]
    layers: Sequence[Layer]
    environment: Sequence[str]
    network: str
    limits: Mapping[str, Any]
    mounts: Sequence[StepMount] = ()
    secrets: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Ran:
    """What a step left: its exit code, and the directory of what it changed, which the solver may take."""

    code: int
    upper: Path
    ignore: Sequence[str]
    out_of_memory: bool = False


class Executor(Protocol):
    def run(self, step: Step, begun: Callable[[str], None], output: Output) -> AbstractAsyncContextManager[Ran]:
        """Run STEP to its end; inside the block what it left is there, after it nothing is. `begun` gets the container's id."""
        ...

    async def pull(self, reference: str, platform: str | None, progress: Progress) -> Image:
        """Fetch an image. Raises NotFound, Unavailable."""
        ...
