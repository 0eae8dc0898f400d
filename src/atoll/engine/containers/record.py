"""A container: its row, and what it is while the daemon runs.

`Record` is a value: every change makes a new one. What is done is written (`Container.save`). An act under way (CREATING, STARTING,
REMOVING) is marked in memory alone (`Container.begin`): what is left of one that was cut short tells it as well as a row would, be it a
directory that no row names or a container of the keeper's whose row says that it does not run.
`Container` adds what does not outlive the daemon: the lock that orders acts, who waits, the restart timer, the health probe.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import orjson

from atoll.errors import NotFound, SystemFailure
from atoll.runtime import Attach, ExitStatus

log = logging.getLogger(__name__)


class Status(enum.StrEnum):
    """Docker's words, and three acts under way."""

    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


UP = frozenset({Status.RUNNING, Status.PAUSED})


@dataclass(frozen=True, slots=True)
class Record:
    """One container, as stored. `config`, `host` and `networking` are Docker's objects with every field present."""

    id: str
    name: str
    created_ns: int
    image: str  # id, "sha256:..."
    image_name: str  # as the user wrote it
    config: dict[str, Any]
    host: dict[str, Any]
    networking: dict[str, Any]  # network name -> EndpointSettings asked for
    mounts: tuple[dict[str, Any], ...] = ()  # MountPoint objects of inspect, see mounts.py
    endpoints: dict[str, Any] = field(default_factory=dict)  # network name -> EndpointSettings in force while running
    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False

    def encode(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def decode(cls, data: bytes) -> Record:
        raw = orjson.loads(data)
        known = {item.name for item in fields(cls)}
        raw = {name: value for name, value in raw.items() if name in known}  # an older daemon may meet a newer row
        raw["status"] = Status(raw["status"])
        raw["mounts"] = tuple(raw["mounts"])
        return cls(**raw)


@dataclass(frozen=True, slots=True)
class Paths:
    """A container's directory: containers/<id>/."""

    root: Path

    @property
    def upper(self) -> Path:
        return self.root / "upper"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def log(self) -> Path:
        return self.root / "container.log"

    @property
    def hosts(self) -> Path:
        return self.root / "hosts"

    @property
    def resolv_conf(self) -> Path:
        return self.root / "resolv.conf"

    @property
    def hostname(self) -> Path:
        return self.root / "hostname"


class Container:
    """A container at run time. Acts that change it hold `lock`; queries read `record` as it is."""

    def __init__(self, record: Record, directory: Path, write: Callable[[Record], None]) -> None:
        self.record = record
        self.paths = Paths(directory)
        self._write = write
        self.lock = asyncio.Lock()
        self.exits: list[asyncio.Future[ExitStatus]] = []
        self.removals: list[asyncio.Future[ExitStatus]] = []
        self.restart_task: asyncio.Task[None] | None = None
        self.restart_delay_s = 0.0
        self.is_restarting = False  # by the user's order: --rm must not take it away between stop and start
        self.health: Any = None  # health.Probe, from start on, where there is a check
        self.pending: list[Attach] = []  # clients that attached before the start
        self.exec_ids: list[str] = []
        self.secrets: tuple[str, ...] = ()  # variables that no record keeps: of a build's step
        self.is_kept = True  # the keeper may know it; until it has said otherwise
        self.removed = False
        self.is_unsaved = False  # the row on the disk is older than the record

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def status(self) -> Status:
        return self.record.status

    @property
    def shown(self) -> Status:
        """The status as clients see it: under way looks like the state before the act."""
        if self.status not in {Status.CREATING, Status.STARTING}:
            return self.status
        if self.restart_task is not None:
            return Status.RESTARTING
        return Status.EXITED if self.record.started_ns else Status.CREATED

    @property
    def is_up(self) -> bool:
        """Whether it has processes: running or paused."""
        return self.record.status in UP

    @property
    def tty(self) -> bool:
        return bool(self.record.config["Tty"])

    @property
    def auto_remove(self) -> bool:
        return bool(self.record.host["AutoRemove"])

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.record.config["Labels"]
        return labels

    def save(self, **changes: Any) -> Record:
        """Makes `changes` to the record and writes its row. Raises SystemFailure where the disk is full; nothing has changed then."""
        if self.removed:
            raise NotFound(f"No such container: {self.id}")
        changed = replace(self.record, **changes)
        self._write(changed)
        self.record = changed
        self.is_unsaved = False
        return changed

    def settle(self, **changes: Any) -> bool:
        """As `save`, of what has happened whatever the disk says: False where the row is to be written later (`is_unsaved`)."""
        try:
            self.save(**changes)
        except SystemFailure as error:
            if not self.is_unsaved:
                log.warning(
                    "container %s is %s now, but that cannot be written: %s", self.id[:12], changes.get("status", self.status), error
                )
            self.record = replace(self.record, **changes)
            self.is_unsaved = True
        return not self.is_unsaved

    def begin(self, **changes: Any) -> None:
        """Makes `changes` to the record in memory: an act begins, whose end `save` will tell."""
        if self.removed:
            raise NotFound(f"No such container: {self.id}")
        self.record = replace(self.record, **changes)

    def exit_status(self) -> ExitStatus:
        """The last exit, as `wait` gives it for one that is not running."""
        record = self.record
        return ExitStatus(record.id, None, record.exit_code, None, record.oom_killed, record.finished_ns)

    def take_pending(self) -> list[Attach]:
        taken, self.pending = self.pending, []
        return taken

    def exited(self, status: ExitStatus) -> None:
        """Tells who waits for the next exit."""
        _settle(self.exits, status)

    def gone(self) -> None:
        """Tells who waits for the removal."""
        self.removed = True
        _settle(self.exits, self.exit_status())
        _settle(self.removals, self.exit_status())

    def attributes(self, **more: str) -> dict[str, str]:
        """The actor's attributes in events: labels, image and name."""
        return {**self.labels, "image": self.record.image_name, "name": self.name, **more}


def _settle(waiting: list[asyncio.Future[ExitStatus]], status: ExitStatus) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(status)
    waiting.clear()
