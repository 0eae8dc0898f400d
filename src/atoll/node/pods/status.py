"""The pod's status as the API shows it: a pure function of the pod, its containers and the time.

The rules are the kubelet's (pkg/kubelet/kubelet_pods.go, status/generate.go), the words too: clients and controllers match on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.client.objects import Object, condition_of
from atoll.node.pods.admit import refusal_of
from atoll.node.pods.model import CONTAINER_ID_SCHEME, Actual, ContainerState, State, is_sidecar
from atoll.node.pods.plan import backoff_left, is_past_deadline, wants_restart
from atoll.units import timestamp_seconds

NS = 1_000_000_000
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_LISTS = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_Names = list[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the status says beside the containers' own states."""

    host_ip: str
    pod_ip: str
    now: float  # seconds since 1970
    messages: Mapping[str, str] = field(default_factory=dict)  # termination messages by container id
    digests: Mapping[str, str] = field(default_factory=dict)  # image id to the name with digest it was pulled by
    is_ending: bool = False  # deleted, or its end is decided: nothing starts again


def pod_status(pod: Object, actual: Actual, facts: Facts) -> Object:
    """The whole status; what others wrote in it (conditions of theirs, qosClass) stays."""
    old = pod.get("status") or {}
    status: Object = {
        name: value
        for name, value in old.items()
        if name in ("qosClass", "nominatedNodeName", "resourceClaimStatuses", "extendedResourceClaimStatus")
    }
    shown = _Containers(pod, actual, facts)
    phase = _phase(pod["spec"], shown, facts)
    status["phase"] = phase if old.get("phase") not in ("Succeeded", "Failed") else old["phase"]
    refusal = refusal_of(pod)
    if refusal is not None:
        status |= {"phase": "Failed", "reason": refusal.reason, "message": f"Pod was rejected: {refusal.message}"}
    elif is_past_deadline(pod, int(facts.now * NS)) and phase != "Succeeded":
        status |= {
            "phase": "Failed",
            "reason": "DeadlineExceeded",
            "message": "Pod was active on the node longer than the specified deadline",
        }
    elif old.get("reason") and old.get("phase") in ("Succeeded", "Failed"):
        status |= {name: old[name] for name in ("reason", "message") if name in old}
    status["startTime"] = old.get("startTime") or timestamp_seconds(facts.now)
    status["hostIP"] = facts.host_ip
    status["hostIPs"] = [{"ip": facts.host_ip}]
    address = facts.pod_ip or old.get("podIP")
    if address:
        status["podIP"] = address
        status["podIPs"] = [{"ip": address}]
    status |= {theirs: rows for theirs, rows in shown.rows.items() if rows}
    if "generation" in pod["metadata"]:
        status["observedGeneration"] = pod["metadata"]["generation"]
    status["conditions"] = _conditions(pod, shown, status["phase"], bool(actual.sandbox and address), facts)
    return status


class _Containers:
    """The status rows of all containers, and what they add up to."""

    def __init__(self, pod: Object, actual: Actual, facts: Facts) -> None:
        self.pod = pod
        self.actual = actual
        self.facts = facts
        self.is_initialized = all(self._is_init_done(container) for container in pod["spec"].get("initContainers") or ())
        self.rows: dict[str, list[Object]] = {}
        for ours, theirs in _LISTS:
            self.rows[theirs] = [self._row(container, ours) for container in pod["spec"].get(ours) or ()]

    def _is_init_done(self, container: Object) -> bool:
        state = self.actual.newest(container["name"])
        if any(self.actual.newest(main["name"]) for main in self.pod["spec"]["containers"]):
            return True
        if state is None:
            return False
        if is_sidecar(container):
            return state.is_running and self.actual.health_of(state).started
        return state.succeeded

    def _row(self, container: Object, kind: str) -> Object:
        name = container["name"]
        attempts = self.actual.containers.get(name) or ()
        newest = attempts[0] if attempts else None
        row: Object = {
            "name": name,
            "image": newest.image if newest else container.get("image", ""),
            "imageID": self.facts.digests.get(newest.image_id, newest.image_id) if newest else "",
            "restartCount": newest.attempt if newest else 0,
            "ready": False,
            "started": False,
        }
        if newest:
            row["containerID"] = CONTAINER_ID_SCHEME + newest.id
        row["state"], last = self._state(container, kind, newest)
        previous = last or (attempts[1] if len(attempts) > 1 else None)
        row["lastState"] = {"terminated": self._terminated(previous)} if previous and previous.state is State.EXITED else {}
        if newest and newest.is_running:
            health = self.actual.health_of(newest)
            row["started"] = health.started
            row["ready"] = health.started and health.ready
        elif newest and newest.succeeded and kind == "initContainers" and not is_sidecar(container):
            row["ready"] = True
        if container.get("resources"):
            row["resources"] = container["resources"]
        return row

    def _state(self, container: Object, kind: str, newest: ContainerState | None) -> tuple[Object, ContainerState | None]:
        """The state, and the attempt that lastState must show in its stead when the state is a wait."""
        waiting = self.actual.waiting.get(container["name"])
        if newest is None or newest.state is State.CREATED or (newest.sandbox != self.actual.sandbox and not newest.is_running):
            if newest is not None and newest.state is State.EXITED and (self.facts.is_ending or not self.actual.sandbox):
                return {"terminated": self._terminated(newest)}, None
            if waiting:
                return {"waiting": {"reason": waiting.reason, "message": waiting.message}}, newest
            reason = "ContainerCreating" if self.is_initialized or kind == "initContainers" else "PodInitializing"
            if kind == "initContainers" and self.pod["spec"]["initContainers"][0]["name"] != container["name"]:
                reason = "PodInitializing"
            if kind == "containers" and not self.pod["spec"].get("initContainers"):
                reason = "ContainerCreating"
            return {"waiting": {"reason": reason}}, newest
        if newest.is_running:
            return {"running": {"startedAt": _time(newest.started_ns)}}, None
        if not self.facts.is_ending and self._will_restart(container, kind, newest):
            if waiting:
                return {"waiting": {"reason": waiting.reason, "message": waiting.message}}, newest
            delay = self.actual.delays.get(newest.name, 0.0)
            if backoff_left(newest, delay, int(self.facts.now * NS)) > 0:
                meta = self.pod["metadata"]
                pod_name = f"{meta['name']}_{meta['namespace']}({meta.get('uid', '')})"
                message = f"back-off {_duration(delay)} restarting failed container={newest.name} pod={pod_name}"
                return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}, newest
            if newest.start_error:
                return {"waiting": {"reason": "RunContainerError", "message": newest.start_error}}, newest
        return {"terminated": self._terminated(newest)}, None

    def _will_restart(self, container: Object, kind: str, state: ContainerState) -> bool:
        policy = str(self.pod["spec"].get("restartPolicy") or "Always")
        if kind == "ephemeralContainers":
            policy = "Never"
        elif kind == "initContainers" and not is_sidecar(container):
            policy = "Never" if policy == "Never" else "OnFailure"
        else:
            policy = str(container.get("restartPolicy") or policy)
        return wants_restart(state, policy)

    def _terminated(self, state: ContainerState) -> Object:
        found: Object = {
            "exitCode": state.exit_code,
            "reason": _reason(state),
            "startedAt": _time(state.started_ns) if state.started_ns else None,
            "finishedAt": _time(state.finished_ns) if state.finished_ns else None,
            "containerID": CONTAINER_ID_SCHEME + state.id,
        }
        message = self.facts.messages.get(state.id) or state.start_error
        if state.is_lost:
            message = "The container could not be located when the pod was terminated"
        if message:
            found["message"] = message
        return {name: value for name, value in found.items() if value is not None}

    def unready(self) -> _Names:
        ready = {row["name"] for row in self.rows["containerStatuses"] if row["ready"]}
        names = [container["name"] for container in self.pod["spec"].get("initContainers") or () if is_sidecar(container)]
        ready |= {row["name"] for row in self.rows["initContainerStatuses"] if row["ready"]}
        return [name for name in (*names, *(container["name"] for container in self.pod["spec"]["containers"])) if name not in ready]

    def uninitialized(self) -> _Names:
        return [c["name"] for c in self.pod["spec"].get("initContainers") or () if not self._is_init_done(c)]


def _phase(spec: Object, shown: _Containers, facts: Facts) -> str:
    policy = spec.get("restartPolicy") or "Always"
    for container, row in zip(spec.get("initContainers") or (), shown.rows["initContainerStatuses"], strict=True):
        ended = row["state"].get("terminated")
        if not is_sidecar(container) and ended and ended["exitCode"] and (policy == "Never" or facts.is_ending):
            return "Failed"
    rows = shown.rows["containerStatuses"]
    if not shown.is_initialized and not any("terminated" in row["state"] for row in rows):
        return "Failed" if facts.is_ending and not any("running" in row["state"] for row in rows) else "Pending"
    if any("waiting" in row["state"] and not row["lastState"] for row in rows):
        return "Pending"
    if any("running" in row["state"] for row in rows):
        return "Running"
    codes = [(row["state"].get("terminated") or row["lastState"]["terminated"])["exitCode"] for row in rows]
    policies = {container["name"]: container.get("restartPolicy") or policy for container in spec["containers"]}
    if facts.is_ending or all("terminated" in row["state"] for row in rows):
        wants = [_wants_restart_code(code, policies[row["name"]]) for code, row in zip(codes, rows, strict=True)]
        if facts.is_ending or not any(wants):
            return "Failed" if any(codes) else "Succeeded"
    return "Running"


def _wants_restart_code(code: int, policy: str) -> bool:
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _conditions(pod: Object, shown: _Containers, phase: str, has_network: bool, facts: Facts) -> list[Object]:
    """Ours brought up to date, those of others as they are."""
    is_over = phase == "Succeeded"
    unready, uninitialized = shown.unready(), shown.uninitialized()
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or () if not _is_true(pod, gate["conditionType"])]
    over = ("PodCompleted", "") if is_over else ("PodFailed", "") if phase == "Failed" else None
    containers_reason = over or ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    containers_ready = not unready and over is None
    ready_reason = containers_reason
    if containers_ready and gates:
        ready_reason = (
            "ReadinessGatesNotReady",
            "; ".join(f'corresponding condition of pod readiness gate "{gate}" does not exist.' for gate in gates),
        )
    wanted = [
        ("PodReadyToStartContainers", has_network and over is None, ("", "")),
        (
            "Initialized",
            not uninitialized or is_over,
            ("PodCompleted", "")
            if is_over
            else ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(uninitialized)}]"),
        ),
        ("Ready", containers_ready and not gates, ready_reason),
        ("ContainersReady", containers_ready, containers_reason),
        ("PodScheduled", True, ("", "")),
    ]
    conditions = []
    for kind, value, (reason, message) in wanted:
        told = (reason, message) if not value or (is_over and kind == "Initialized") else ("", "")
        conditions.append(_condition(pod, kind, value, told, facts.now))
    others = [c for c in (pod.get("status") or {}).get("conditions") or () if c.get("type") not in OWNED]
    return conditions + others


def _condition(pod: Object, kind: str, value: bool, why: tuple[str, str], now: float) -> Object:
    before = condition_of(pod, kind)
    status = "True" if value else "False"
    since = before.get("lastTransitionTime") if before and before.get("status") == status else None
    found: Object = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since or timestamp_seconds(now)}
    if "generation" in pod["metadata"]:
        found["observedGeneration"] = pod["metadata"]["generation"]
    reason, message = why
    return found | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})


def _is_true(pod: Object, kind: str) -> bool:
    condition = condition_of(pod, kind)
    return condition is not None and condition.get("status") == "True"


def _reason(state: ContainerState) -> str:
    if state.oom_killed:
        return "OOMKilled"
    if state.is_lost:
        return "ContainerStatusUnknown"
    if state.start_error:
        return "StartError"
    return "Completed" if state.exit_code == 0 else "Error"


def _time(ns: int) -> str:
    return timestamp_seconds(ns / NS)


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
