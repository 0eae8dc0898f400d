"""A deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure with upstream's reasons and words.

`kubectl rollout status` reads these: it waits while updated, ready and available lag behind, and fails on ProgressDeadlineExceeded.
Pure: objects in, status out.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.client.objects import Object, name_of
from atoll.controllers import conditions
from atoll.controllers.conditions import Conditions, condition
from atoll.controllers.deployment.rollout import available, fenceposts, size, wanted
from atoll.controllers.pods import parse_time
from atoll.units import timestamp_seconds

NO_DEADLINE = 2**31 - 1  # progressDeadlineSeconds of MaxInt32 means none
AVAILABLE_REASON = "NewReplicaSetAvailable"
TIMED_OUT_REASON = "ProgressDeadlineExceeded"


def counts(deployment: Object, new_set: Object | None, all_sets: Sequence[Object]) -> Object:
    """The status without conditions; zero counts are left out, as upstream's omitempty does."""

    def total(field: str) -> int:
        return sum((each.get("status") or {}).get(field, 0) for each in all_sets)

    numbers = {
        "replicas": total("replicas"),
        "updatedReplicas": (new_set.get("status") or {}).get("replicas", 0) if new_set else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": total("availableReplicas"),
        "unavailableReplicas": max(0, sum(map(size, all_sets)) - sum(map(available, all_sets))),
    }
    status: Object = {field: number for field, number in numbers.items() if number}
    status["observedGeneration"] = deployment["metadata"].get("generation", 0)
    collisions = (deployment.get("status") or {}).get("collisionCount")
    if collisions is not None:
        status["collisionCount"] = collisions
    return status


def has_deadline(deployment: Object) -> bool:
    return deadline_of(deployment) != NO_DEADLINE


def deadline_of(deployment: Object) -> int:
    value = deployment["spec"].get("progressDeadlineSeconds", 600)
    return NO_DEADLINE if value is None else int(value)


def is_complete(deployment: Object, status: Object) -> bool:
    """Every pod is of the new template and available, and none is left of the old."""
    replicas = wanted(deployment)
    fields = ("updatedReplicas", "replicas", "availableReplicas")
    seen: bool = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return seen and all(status.get(field, 0) == replicas for field in fields)


def is_progressing(old: Object, new: Object) -> bool:
    """More updated, ready or available pods, or fewer old ones, than in the last status."""

    def old_pods(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = any(new.get(field, 0) > old.get(field, 0) for field in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    return grown or old_pods(new) < old_pods(old)


def deadline_left(deployment: Object, entries: Conditions | None, now: float) -> float | None:
    """Seconds until the rollout counts as stuck (at most 0: it does); None when nothing is running against a deadline."""
    progressing = conditions.find(entries, "Progressing")
    if progressing is None or not has_deadline(deployment) or deployment["spec"].get("paused"):
        return None
    if progressing.get("reason") in (AVAILABLE_REASON, TIMED_OUT_REASON):
        return None
    since = parse_time(progressing.get("lastUpdateTime")) or now
    return since + deadline_of(deployment) - now


def availability(deployment: Object, status: Object, now: str) -> Object:
    if status.get("availableReplicas", 0) >= wanted(deployment) - fenceposts(deployment)[1]:
        return condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now, updated=True)
    return condition(
        "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now, updated=True
    )


def paused_condition(deployment: Object, entries: Conditions | None, now: str) -> Object | None:
    """The Progressing condition when the deployment was just paused or resumed; None when nothing changed."""
    progressing = conditions.find(entries, "Progressing")
    reason = progressing.get("reason") if progressing else None
    if not has_deadline(deployment) or reason == TIMED_OUT_REASON:
        return None
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != "DeploymentPaused":
        return condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now, updated=True)
    if not paused and reason == "DeploymentPaused":
        return condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now, updated=True)
    return None


def scaled_status(deployment: Object, entries: Conditions | None, new_set: Object | None, all_sets: Sequence[Object], now: float) -> Object:
    """Counts and availability; for a deployment that is paused, scaling or being deleted."""
    status = counts(deployment, new_set, all_sets)
    status["conditions"] = conditions.put(entries, availability(deployment, status, timestamp_seconds(now)))
    return status


def rollout_status(
    deployment: Object, entries: Conditions | None, new_set: Object | None, all_sets: Sequence[Object], now: float
) -> Object:
    """The full status during and after a rollout. `entries` are the conditions so far, which may hold news not yet written."""
    status = scaled_status(deployment, entries, new_set, all_sets, now)
    status["conditions"] = _with_progress(deployment, status, new_set, now)
    failure = next((found for each in (new_set, *all_sets) if each and (found := _failure_of(each))), None)
    if failure is None:
        status["conditions"] = conditions.without(status["conditions"], "ReplicaFailure")
    else:
        copied = condition(
            "ReplicaFailure", failure["status"], failure.get("reason", ""), failure.get("message", ""), timestamp_seconds(now), updated=True
        )
        status["conditions"] = conditions.put(status["conditions"], copied)
    return status


def _failure_of(replica_set: Object) -> Object | None:
    return conditions.find((replica_set.get("status") or {}).get("conditions"), "ReplicaFailure")


def _with_progress(deployment: Object, status: Object, new_set: Object | None, now: float) -> Conditions:
    entries: Conditions = status["conditions"]
    if not has_deadline(deployment):
        return conditions.without(entries, "Progressing")
    old = conditions.find(entries, "Progressing")
    finished = status.get("replicas", 0) == status.get("updatedReplicas", 0)
    if old is not None and old.get("reason") == AVAILABLE_REASON and finished:
        return entries
    who = f'ReplicaSet "{name_of(new_set)}"' if new_set else f'Deployment "{name_of(deployment)}"'
    when = timestamp_seconds(now)
    left = deadline_left(deployment, entries, now)
    if is_complete(deployment, status):
        return conditions.put(
            entries, condition("Progressing", "True", AVAILABLE_REASON, f"{who} has successfully progressed.", when, updated=True)
        )
    if is_progressing(deployment.get("status") or {}, status):
        made = condition("Progressing", "True", "ReplicaSetUpdated", f"{who} is progressing.", when, updated=True)
        if old is not None and old["status"] == "True":
            made["lastTransitionTime"] = old["lastTransitionTime"]
        return [*conditions.without(entries, "Progressing"), made]  # lastUpdateTime moves on with every sign of progress
    if left is not None and left <= 0:
        return conditions.put(
            entries, condition("Progressing", "False", TIMED_OUT_REASON, f"{who} has timed out progressing.", when, updated=True)
        )
    return entries
