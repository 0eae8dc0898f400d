"""What to do next for one pod: a pure function of what should be and what is.

The order of a pod's life: sandbox, init containers one after another (sidecars stay and are waited for only until they have started), then
the main containers. What has ended is started again by the restart policy, after a back-off that starts at nothing, then 10 s, and doubles
to five minutes. Each call answers with what can be done now and with the time at which to ask again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from atoll.client.objects import Object
from atoll.node.pods.admit import refusal_of
from atoll.node.pods.model import Actual, ContainerState, State, is_sidecar, spec_hash

BACKOFF_BASE_S = 10.0  # kubelet's MaxContainerBackOff and its initial value
BACKOFF_MAX_S = 300.0
BACKOFF_RESET_S = 600.0  # a container that ran this long starts afresh
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class MakeSandbox:
    """The pod's network namespace."""


@dataclass(frozen=True, slots=True)
class Start:
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Stop a container that is to be replaced; `reason` is what the event says."""

    state: ContainerState
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove what was made and never started, or what nobody needs for its log."""

    id: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The pod has ended: stop what still runs and give back what it holds."""


Action = MakeSandbox | Start | Kill | Discard | Finish


@dataclass(frozen=True, slots=True)
class Plan:
    actions: Sequence[Action] = ()
    again_at: float | None = None  # of the same clock as `now`


def plan(pod: Object, actual: Actual, now: float, wall_ns: int) -> Plan:
    """`now` is the clock of retry times, `wall_ns` that of the containers' own times."""
    if has_ended(pod, actual, wall_ns):
        return Plan([Finish()])
    if not actual.sandbox:
        return Plan([MakeSandbox()])
    steps = _Steps(pod, actual, now, wall_ns)
    steps.walk()
    for attempts in actual.containers.values():
        kept = 2 if attempts[0].state is not State.CREATED else 3
        steps.actions += [Discard(state.id) for state in attempts[kept:] if not state.is_running and state.sandbox]
    deadline = deadline_ns(pod)
    if deadline is not None:
        steps.ask_again(now + max(0.0, (deadline - wall_ns) / NS))
    return Plan(steps.actions, steps.again_at)


class _Steps:
    def __init__(self, pod: Object, actual: Actual, now: float, wall_ns: int) -> None:
        self.spec = pod["spec"]
        self.actual = actual
        self.now = now
        self.wall_ns = wall_ns
        self.actions: list[Action] = []
        self.again_at: float | None = None

    def walk(self) -> None:
        self.watch_over_running()
        if self.may_start_main():
            for container in (*self.spec["containers"], *(self.spec.get("ephemeralContainers") or ())):
                self.consider(container, self.policy(container))

    def policy(self, container: Object) -> str:
        if container in (self.spec.get("ephemeralContainers") or ()):
            return "Never"
        return str(container.get("restartPolicy") or self.spec.get("restartPolicy") or "Always")

    def watch_over_running(self) -> None:
        """Containers that must go for another attempt: unhealthy, or of an image that was changed."""
        for container in all_containers(self.spec):
            state = self.actual.newest(container["name"])
            if state is None or not state.is_running:
                continue
            health = self.actual.health_of(state)
            if health.failure:
                restarts = self.policy(container) != "Never"
                self.actions.append(Kill(state, f"Container {state.name} {health.failure}" + (", will be restarted" if restarts else "")))
            elif state.hash != spec_hash(container):
                self.actions.append(Kill(state, f"Container {state.name} definition changed, will be restarted"))

    def may_start_main(self) -> bool:
        """Start the next init container if it is time; true when all are done."""
        inits = self.spec.get("initContainers") or ()
        main_began = any(self.actual.newest(container["name"]) for container in self.spec["containers"])
        for index, container in enumerate(inits):
            state = self.actual.newest(container["name"])
            if is_sidecar(container):
                self.consider(container, "Always")
                has_started = state is not None and state.is_running and self.actual.health_of(state).started
                if not has_started and not main_began:
                    return False
                continue
            later_began = main_began or any(self.actual.newest(other["name"]) for other in inits[index + 1 :])
            if later_began or (state is not None and state.succeeded):
                continue
            self.consider(container, "Never" if self.spec.get("restartPolicy") == "Never" else "OnFailure")
            return False
        return True

    def consider(self, container: Object, policy: str) -> None:
        """Start it, for the first time or again, unless it runs, is over, or has to wait."""
        name = container["name"]
        state = self.actual.newest(name)
        if state is not None and state.is_running:
            return
        waiting = self.actual.waiting.get(name)
        if waiting is not None and waiting.retry_at > self.now:
            self.ask_again(waiting.retry_at)
            return
        attempts = self.actual.containers.get(name) or ()
        attempt = attempts[0].attempt + 1 if attempts else 0
        if state is None:
            self.actions.append(Start(name, attempt))
        elif state.state is State.CREATED:
            self.actions += [Discard(state.id), Start(name, state.attempt)]
        elif wants_restart(state, policy):
            left = backoff_left(state, self.actual.delays.get(name, 0.0), self.wall_ns)
            if left > 0:
                self.ask_again(self.now + left)
            else:
                self.actions.append(Start(name, attempt))

    def ask_again(self, at: float) -> None:
        self.again_at = at if self.again_at is None else min(self.again_at, at)


def all_containers(spec: Object) -> Iterator[Object]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def wants_restart(state: ContainerState, policy: str) -> bool:
    return policy == "Always" or (policy == "OnFailure" and state.exit_code != 0)


def backoff_left(state: ContainerState, delay: float, wall_ns: int) -> float:
    """Seconds until the container may start again."""
    return (state.finished_ns - wall_ns) / NS + delay


def next_delay(delay: float, ended: ContainerState | None) -> float:
    """The back-off in force after a container was started again."""
    if ended is None:
        return 0.0
    ran = (ended.finished_ns - ended.started_ns) / NS if ended.started_ns else 0.0
    if ran >= BACKOFF_RESET_S or not delay:
        return BACKOFF_BASE_S
    return min(delay * 2, BACKOFF_MAX_S)


def has_ended(pod: Object, actual: Actual, wall_ns: int) -> bool:
    """Nothing of the pod is to run any more: it is refused, or by its policy, by its deadline, or because it was said before."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    if is_past_deadline(pod, wall_ns) or refusal_of(pod) is not None:
        return True
    spec = pod["spec"]
    policy = spec.get("restartPolicy") or "Always"
    for container in spec.get("initContainers") or ():
        state = _last(actual, container["name"])
        if not is_sidecar(container) and policy == "Never" and state is not None and state.state is State.EXITED and state.exit_code:
            return True
    for container in spec["containers"]:
        state = _last(actual, container["name"])
        own = container.get("restartPolicy") or policy
        if state is None or state.state is not State.EXITED or wants_restart(state, own):
            return False
    return True


def _last(actual: Actual, name: str) -> ContainerState | None:
    attempts = actual.containers.get(name)
    return attempts[0] if attempts else None


def deadline_ns(pod: Object) -> int | None:
    """When activeDeadlineSeconds runs out."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    start = (pod.get("status") or {}).get("startTime")
    if seconds is None or not start:
        return None
    import calendar
    import time

    return (calendar.timegm(time.strptime(start, "%Y-%m-%dT%H:%M:%SZ")) + int(seconds)) * NS


def is_past_deadline(pod: Object, wall_ns: int) -> bool:
    deadline = deadline_ns(pod)
    return deadline is not None and wall_ns >= deadline
