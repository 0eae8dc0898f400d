"""What to create and delete next. Pure.

A rolling update replaces at most maxUnavailable pods at a time, or with maxSurge brings the new pod up beside the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.client.objects import Object, is_deleting, labels_of, name_of
from atoll.controllers.daemonset.placement import placement
from atoll.controllers.deployment.rollout import pods_of
from atoll.controllers.history import HASH_LABEL
from atoll.controllers.pods import is_available, phase_of


@dataclass(slots=True)
class Plan:
    """Nodes to start a pod on, and pods to delete."""

    create: list[str] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    failed: list[Object] = field(default_factory=list)  # of `delete`, those that ended by failing


def plan_nodes(daemon_set: Object, nodes: Mapping[str, Object], by_node: Mapping[str, Sequence[Object]], digest: str) -> Plan:
    """Missing pods, pods where none should be, failed ones, and duplicates (the oldest stays)."""
    made = Plan()
    surge = is_rolling(daemon_set) and limits(daemon_set, 1)[0] > 0
    for name, node in nodes.items():
        starts, stays = placement(daemon_set, node)
        pods: list[Object] = list(by_node.get(name, ()))
        failed = [pod for pod in pods if phase_of(pod) == "Failed"]
        alive = sorted((pod for pod in pods if pod not in failed and not is_deleting(pod)), key=age)
        if not stays:
            made.delete += [pod for pod in pods if not is_deleting(pod)]
            continue
        made.failed += [pod for pod in failed if not is_deleting(pod)]
        if not pods and starts:
            made.create.append(name)
        elif len(alive) > 1:
            newest = [pod for pod in alive if labels_of(pod).get(HASH_LABEL) == digest]
            keep = [alive[0], *newest[:1]] if surge else alive[:1]
            made.delete += [pod for pod in alive if pod not in keep]
    made.delete += made.failed
    for name, strays in by_node.items():
        if name not in nodes:
            made.delete += [pod for pod in strays if not is_deleting(pod)]
    return made


def is_rolling(daemon_set: Object) -> bool:
    kind: str = (daemon_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    return kind == "RollingUpdate"


def limits(daemon_set: Object, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; both round up, and both zero would never move."""
    rolling = (daemon_set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    surge, unavailable = (
        pods_of(rolling.get(name, default), desired, up=True) for name, default in (("maxSurge", 0), ("maxUnavailable", 1))
    )
    return surge, unavailable if surge or unavailable else 1


def plan_update(daemon_set: Object, nodes: Sequence[str], by_node: Mapping[str, Sequence[Object]], digest: str, now: float) -> Plan:
    """The next step of a rolling update over the nodes that should have a pod."""
    made = Plan()
    surge, unavailable = limits(daemon_set, len(nodes))
    min_ready = daemon_set["spec"].get("minReadySeconds", 0)
    candidates: list[Object] = []
    missing = 0
    surging = 0
    waiting: list[str] = []
    for name in nodes:
        alive = [pod for pod in by_node.get(name, ()) if not is_deleting(pod)]
        new = [pod for pod in alive if labels_of(pod).get(HASH_LABEL) == digest]
        old = [pod for pod in alive if pod not in new]
        ready = any(is_available(pod, min_ready, now) for pod in new)
        if surge and old:
            if ready or not is_available(old[0], min_ready, now):
                made.delete += old[:1]  # its replacement is up, or it was of no use anyway
            if new:
                surging += not ready
            elif is_available(old[0], min_ready, now):
                waiting.append(name)
        elif old and not new:
            if is_available(old[0], min_ready, now):
                candidates.append(old[0])
            else:
                missing += 1
                made.delete.append(old[0])  # unavailable already: replacing it costs nothing
        elif not ready:
            missing += 1
    if surge:
        made.create += waiting[: max(0, surge - surging)]
    else:
        made.delete += candidates[: max(0, unavailable - missing)]
    return made


def age(pod: Object) -> tuple[str, str]:
    return (pod["metadata"].get("creationTimestamp", ""), name_of(pod))
