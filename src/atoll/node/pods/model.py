"""What a pod's containers are: read from the engine's records by their labels, the names cri-dockerd gave them.

The engine's records are the only memory of what runs: a kubelet that starts anew finds every container here, with the pod it belongs to and
the attempt it was.
"""

from __future__ import annotations

import calendar
import enum
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.client.objects import Object
from atoll.engine.containers.record import UP, Container, Status

NS = 1_000_000_000
LABEL_NAME = "io.kubernetes.pod.name"
LABEL_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER = "io.kubernetes.container.name"
LABEL_TYPE = "io.kubernetes.docker.type"
LABEL_SANDBOX = "io.kubernetes.sandbox.id"  # which of the pod's sandboxes it was made for
LABEL_HASH = "annotation.io.kubernetes.container.hash"
LABEL_ATTEMPT = "annotation.io.kubernetes.container.restartCount"
CONTAINER_ID_SCHEME = "atoll://"
MIRROR = "kubernetes.io/config.mirror"


class State(enum.Enum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container of a pod, one attempt at it."""

    id: str
    name: str
    attempt: int
    sandbox: str
    hash: str
    image: str
    image_id: str
    state: State
    exit_code: int = 0
    oom_killed: bool = False
    start_error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    is_lost: bool = False  # ended unseen

    @property
    def is_running(self) -> bool:
        return self.state is State.RUNNING

    @property
    def succeeded(self) -> bool:
        return self.state is State.EXITED and self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not start, and when it is tried again (of the event loop's clock)."""

    reason: str
    message: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class Health:
    """What probes say of one container, by its id."""

    started: bool = True
    ready: bool = True
    failure: str = ""  # of startup or liveness: the container must be killed


@dataclass(slots=True)
class Actual:
    """What is. `containers`: attempts of each, the newest first."""

    sandbox: str = ""  # the present one's id
    containers: Mapping[str, Sequence[ContainerState]] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    delays: Mapping[str, float] = field(default_factory=dict)  # seconds of crash back-off of each container

    def newest(self, name: str) -> ContainerState | None:
        """The last attempt in the present sandbox."""
        found = self.containers.get(name)
        return found[0] if found and found[0].sandbox == self.sandbox else None

    def health_of(self, state: ContainerState) -> Health:
        return self.health.get(state.id, _UNPROBED)


_UNPROBED = Health()


def container_state(container: Container) -> ContainerState:
    """Of the engine's record. A container that could not be started counts as exited, as with any runtime behind CRI."""
    record, labels = container.record, container.labels
    state = State.CREATED
    exit_code, finished = record.exit_code, record.finished_ns
    if record.status in UP:
        state = State.RUNNING
    elif record.status is Status.EXITED:
        state = State.EXITED
    elif record.error:
        state, exit_code, finished = State.EXITED, record.exit_code or 128, record.finished_ns or record.created_ns
    return ContainerState(
        id=record.id,
        name=labels[LABEL_CONTAINER],
        attempt=int(labels.get(LABEL_ATTEMPT) or 0),
        sandbox=labels.get(LABEL_SANDBOX, ""),
        hash=labels.get(LABEL_HASH, ""),
        image=record.image_name,
        image_id=record.image,
        state=state,
        exit_code=exit_code,
        oom_killed=record.oom_killed,
        start_error=record.error if state is State.EXITED else "",
        started_ns=record.started_ns,
        finished_ns=finished,
    )


def by_pod(containers: Iterable[Container]) -> Iterator[tuple[str, Container]]:
    """Pairs of pod uid and container, of those that are a pod's."""
    for container in containers:
        uid = container.labels.get(LABEL_UID)
        if uid and LABEL_CONTAINER in container.labels and container.status not in (Status.CREATING, Status.REMOVING):
            yield uid, container


def states_of(uid: str, containers: Iterable[Container]) -> dict[str, list[ContainerState]]:
    found: dict[str, list[ContainerState]] = {}
    for owner, container in by_pod(containers):
        if owner == uid:
            state = container_state(container)
            found.setdefault(state.name, []).append(state)
    for attempts in found.values():
        attempts.sort(key=lambda state: state.attempt, reverse=True)
    return found


LOST_EXIT = 137  # what upstream says of a container that ended unseen


def lost_state(row: Object) -> ContainerState:
    """A container that the API knows of and this machine does not, by its row of the status: it ended unseen."""
    ended = (row.get("state") or {}).get("terminated") or {}
    return ContainerState(
        id=row["containerID"].removeprefix(CONTAINER_ID_SCHEME),
        name=row["name"],
        attempt=int(row.get("restartCount") or 0),
        sandbox="",
        hash="",
        image=row.get("image", ""),
        image_id=row.get("imageID", ""),
        state=State.EXITED,
        exit_code=int(ended.get("exitCode", LOST_EXIT)),
        finished_ns=_seconds(ended.get("finishedAt")) * NS,
        started_ns=_seconds(ended.get("startedAt")) * NS,
        is_lost=not ended,
    )


def _seconds(text: str | None) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) if text else 0


def spec_hash(container: Object) -> str:
    """Changes when the container must be made anew: its image is the one field of it that an update may change."""
    return hashlib.sha256(f"{container['name']}\0{container.get('image', '')}".encode()).hexdigest()[:16]


def is_sidecar(container: Object) -> bool:
    """An init container that goes on beside the main ones."""
    return container.get("restartPolicy") == "Always"


def is_mirror(pod: Object) -> bool:
    return MIRROR in (pod["metadata"].get("annotations") or {})
