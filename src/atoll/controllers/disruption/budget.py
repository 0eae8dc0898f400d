"""The arithmetic of a disruption budget. Pure: budget, pods and their owners' sizes in, status out.

A minimum given as a number counts the pods there are; percentages, and a maximum of any form, count what the pods' owners want to have,
so that a scale-down or a crash does not loosen them (policy/v1 PodDisruptionBudget; kube-controller-manager's disruption controller).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from atoll.client.objects import Object, is_deleting, name_of
from atoll.controllers import conditions
from atoll.controllers.conditions import condition
from atoll.controllers.deployment.rollout import pods_of
from atoll.controllers.pods import is_ready, parse_time
from atoll.units import timestamp_seconds

DISRUPTION_TIMEOUT_S = 120.0  # an evicted pod that is still there after this was not deleted: upstream's DeletionTimeout
ALLOWED = "DisruptionAllowed"


class Goal(NamedTuple):
    """Pods there should be, and pods that must stay healthy."""

    expected: int
    desired: int


def counts_owners(budget: Object) -> bool:
    """Whether the sizes of the pods' owners are needed."""
    spec = budget.get("spec") or {}
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def goal(budget: Object, pods: int, wanted: int) -> Goal:
    """`wanted` is how many pods their owners want in all."""
    spec = budget.get("spec") or {}
    most, least = spec.get("maxUnavailable"), spec.get("minAvailable")
    if most is not None:
        return Goal(wanted, max(0, wanted - pods_of(most, wanted, up=True)))
    if isinstance(least, str):
        return Goal(wanted, pods_of(least, wanted, up=True))
    return Goal(pods, least if least is not None else 0)


def still_disrupted(budget: Object, pods: Sequence[Object], now: float) -> tuple[dict[str, str], list[Object], float | None]:
    """Of the evicted pods that the API server noted: those not gone yet; those that were not deleted in time after all; and in how many
    seconds the next one is.
    """
    noted = (budget.get("status") or {}).get("disruptedPods") or {}
    kept: dict[str, str] = {}
    stayed, waits = [], []
    for pod in pods:
        at = noted.get(name_of(pod))
        if at is None or is_deleting(pod):
            continue
        left = (parse_time(at) or 0.0) + DISRUPTION_TIMEOUT_S - now
        if left < 0:
            stayed.append(pod)
        else:
            kept[name_of(pod)] = at
            waits.append(left)
    return kept, stayed, min(waits, default=None)


def make_status(budget: Object, pods: Sequence[Object], target: Goal, disrupted: Mapping[str, str], now: float) -> Object:
    healthy = sum(is_ready(pod) and not is_deleting(pod) and name_of(pod) not in disrupted for pod in pods)
    allowed = max(0, healthy - target.desired) if target.expected > 0 else 0
    enough = condition(ALLOWED, "True", "SufficientPods", "", timestamp_seconds(now))
    made = enough if allowed else {**enough, "status": "False", "reason": "InsufficientPods"}
    status: Object = {
        "currentHealthy": healthy,
        "desiredHealthy": target.desired,
        "expectedPods": target.expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget["metadata"].get("generation", 0),
        "conditions": _with(budget, made),
    }
    return {**status, "disruptedPods": dict(disrupted)} if disrupted else status


def failed_status(budget: Object, why: str, now: float) -> Object:
    """What cannot be reckoned allows nothing."""
    made = condition(ALLOWED, "False", "SyncFailed", why, timestamp_seconds(now))
    return {**(budget.get("status") or {}), "disruptionsAllowed": 0, "conditions": _with(budget, made)}


def _with(budget: Object, made: Object) -> list[Object]:
    made = {**made, "observedGeneration": budget["metadata"].get("generation", 0)}
    entries = (budget.get("status") or {}).get("conditions")
    old = conditions.find(entries, ALLOWED)
    if old is not None and old.get("status") == made["status"]:
        made["lastTransitionTime"] = old.get("lastTransitionTime", made["lastTransitionTime"])
    return [*conditions.without(entries, ALLOWED), made]
