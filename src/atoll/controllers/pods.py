"""What controllers ask of pods, and how a pod is made from a template."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable, Sequence

from atoll.client.objects import Object, annotations_of, condition_of, copy_of, is_deleting, is_true, name_of, owner_reference
from atoll.client.resources import Resource

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
BURST = 500  # pods that a controller makes or deletes for one object in one pass, upstream's BurstReplicas
_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


def is_active(pod: Object) -> bool:
    """Not finished and not on its way out (controller.IsPodActive)."""
    return phase_of(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)


def is_finished(pod: Object) -> bool:
    return phase_of(pod) in ("Succeeded", "Failed")


def phase_of(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_ready(pod: Object) -> bool:
    return is_true(pod, "Ready")


def ready_since(pod: Object) -> float | None:
    """Epoch seconds of the Ready condition's last change to True; None when not ready."""
    condition = condition_of(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    return parse_time(condition.get("lastTransitionTime")) or 0.0


def available_in(pod: Object, min_ready_seconds: int, now: float) -> float | None:
    """Seconds until the pod counts as available: 0 when it does now, None when it is not ready at all."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, since + min_ready_seconds - now) if min_ready_seconds else 0.0


def is_available(pod: Object, min_ready_seconds: int, now: float) -> bool:
    return available_in(pod, min_ready_seconds, now) == 0.0


def parse_time(text: str | None) -> float | None:
    """metav1.Time or MicroTime to epoch seconds."""
    if not text:
        return None
    seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    fraction = text[19:].rstrip("Z")
    return seconds + (float(f"0{fraction}") if fraction else 0.0)


def restarts_of(pod: Object) -> int:
    return sum(status.get("restartCount", 0) for status in (pod.get("status") or {}).get("containerStatuses") or ())


def pod_from_template(template: Object, owner: Object, owner_resource: Resource, *, name: str | None = None) -> Object:
    """The pod a controller creates; `name` None lets the server add a suffix to the owner's name."""
    meta = template.get("metadata") or {}
    metadata: Object = {field: meta[field] for field in ("labels", "annotations", "finalizers") if meta.get(field)}
    if name is None:
        metadata["generateName"] = f"{name_of(owner)}-"
    else:
        metadata["name"] = name
    metadata["ownerReferences"] = [owner_reference(owner, owner_resource)]
    pod: Object = copy_of({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return pod


def rank_for_deletion(pods: Sequence[Object], related: Iterable[Object]) -> list[Object]:
    """`pods`, those to delete first in front (controller.ActivePodsWithRanks): unassigned, pending, not ready, cheap, crowded on their
    node, lately ready, restarted, young. `related` are all pods of the same owner, counted for the crowding.
    """
    crowd: dict[str, int] = {}
    for pod in related:
        node = pod["spec"].get("nodeName")
        if node:
            crowd[node] = crowd.get(node, 0) + 1

    def rank(pod: Object) -> tuple[float, ...]:
        node = pod["spec"].get("nodeName")
        since = ready_since(pod)
        created = parse_time(pod["metadata"].get("creationTimestamp")) or 0.0
        return (
            1 if node else 0,
            _PHASE_RANK.get(phase_of(pod), 2),
            0 if since is None else 1,
            _deletion_cost(pod),
            -crowd.get(node or "", 0),
            -(since or 0.0),
            -restarts_of(pod),
            -created,
        )

    return sorted(pods, key=rank)


def _deletion_cost(pod: Object) -> int:
    try:
        return int(annotations_of(pod).get(DELETION_COST, "0"))
    except ValueError:
        return 0
