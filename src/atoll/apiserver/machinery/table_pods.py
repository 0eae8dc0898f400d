"""The row of a pod. Its STATUS is no field: it is what the containers are waiting for or died of, as upstream's printer reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.table_format import NONE, Age, columns, condition, containers, is_deleted, labels, name_of, seconds_of

POD = columns("Name, Ready, Status, Restarts, Age; IP, Node, Nominated Node, Readiness Gates")
POD_TEMPLATE = columns("Name, Containers, Images, Pod Labels")
_TERMINAL = ("Succeeded", "Failed")

Object = Mapping[str, Any]


def pod(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready, total, reason, restarts = summary(obj, age)
    addresses = status.get("podIPs") or ()
    gates = spec.get("readinessGates") or ()
    passed = sum(condition(status, gate.get("conditionType") or "").get("status") == "True" for gate in gates)
    return [
        name_of(obj),
        f"{ready}/{total}",
        reason,
        restarts,
        age.of(obj),
        (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    ]


def pod_template(obj: Object, _: Age) -> list[Any]:
    template = obj.get("template") or {}
    return [name_of(obj), *containers(template.get("spec") or {}), labels((template.get("metadata") or {}).get("labels"))]


def summary(obj: Object, age: Age) -> tuple[int, int, str, str]:
    """Containers ready, containers in all, the status in a word, and restarts with how long ago the last was."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    sidecars = {c.get("name") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    reason = status.get("reason") or status.get("phase") or ""
    if condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    initializing, sidecars_ready = _initializing(spec, status, sidecars)
    inits = status.get("initContainerStatuses") or ()
    counted = [c for c in inits if initializing or c.get("name") in sidecars]
    ready = sidecars_ready
    if initializing:
        reason = initializing
    if not initializing or condition(status, "Initialized").get("status") == "True":
        mains = status.get("containerStatuses") or ()
        counted = [*(c for c in inits if c.get("name") in sidecars), *mains]
        running = sum(bool(c.get("ready")) and "running" in (c.get("state") or {}) for c in mains)
        ready += running
        reason = next((found for found in map(_reason, mains) if found), reason)
        if reason == "Completed" and running:
            reason = "Running" if condition(status, "Ready").get("status") == "True" else "NotReady"
    if is_deleted(obj):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in _TERMINAL:
            reason = "Terminating"
    return ready, len(spec.get("containers") or ()) + len(sidecars), reason, _restarts(counted, age)


def _initializing(spec: Object, status: Object, sidecars: set[str | None]) -> tuple[str, int]:
    """What the first unfinished init container is about, "" when all are done; and how many sidecars before it are ready."""
    ready = 0
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated and not terminated.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        if terminated:
            return f"Init:{_ended(terminated)}", ready
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}", ready
        return f"Init:{index}/{len(spec.get('initContainers') or ())}", ready
    return "", ready


def _reason(container: Object) -> str:
    state = container.get("state") or {}
    if (state.get("waiting") or {}).get("reason"):
        return str(state["waiting"]["reason"])
    return _ended(state["terminated"]) if state.get("terminated") else ""


def _ended(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    return f"Signal:{terminated['signal']}" if terminated.get("signal") else f"ExitCode:{terminated.get('exitCode') or 0}"


def _restarts(statuses: list[Object], age: Age) -> str:
    count = sum(status.get("restartCount") or 0 for status in statuses)
    ends = [((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for status in statuses]
    known = [end for end in ends if end]
    return f"{count} ({age.since(max(known, key=seconds_of))} ago)" if count and known else str(count)
