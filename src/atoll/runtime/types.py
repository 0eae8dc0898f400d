"""The values that cross the runtime's face: root file system, other runtimes, exit status, state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Overlay:
    """The root file system as overlay directories, mounted by the container's init in its own mount namespace, `volatile`.

    `lower` has the top layer first. After the container is gone `upper` holds what it wrote; nothing of it is mounted on the host.
    """

    lower: tuple[Path, ...]
    upper: Path
    work: Path


@dataclass(frozen=True, slots=True)
class OtherRuntime:
    """An OCI runtime that is a program: runc, crun. `name` is what the user calls it by."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container's main process (`exec_id` None) or an exec ended.

    `code` is what a shell shows: the exit status, or 128 + `signal`. `oom_killed`: the kernel killed a process of the container's
    cgroup for memory. `finished_ns` is Unix time. `is_unknown`: nobody could tell any more how it ended, and `code` is 255.
    """

    id: str
    exec_id: str | None
    code: int
    signal: int | None
    oom_killed: bool
    finished_ns: int
    is_unknown: bool = False

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> ExitStatus:
        return cls(
            fields["id"],
            fields["exec_id"],
            fields["code"],
            fields["signal"],
            fields["oom_killed"],
            fields["finished_ns"],
            fields.get("is_unknown", False),
        )


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """One container the keeper knows. `pid` is the host's view; `exit` is set once `status` is "exited"."""

    id: str
    pid: int
    status: Literal["running", "paused", "exited"]
    started_ns: int
    bundle: Path
    cgroup: str
    exit: ExitStatus | None
    execs: tuple[str, ...]

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> RuntimeState:
        ended = fields["exit"]
        return cls(
            fields["id"],
            fields["pid"],
            fields["status"],
            fields["started_ns"],
            Path(fields["bundle"]),
            fields["cgroup"],
            None if ended is None else ExitStatus.from_wire(ended),
            tuple(fields["execs"]),
        )
