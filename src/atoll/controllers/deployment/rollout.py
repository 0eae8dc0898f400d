"""How large each replica set of a deployment should be now. Pure: sets in, sizes out.

A rolling update keeps two promises at every instant: never more than replicas + maxSurge pods, never fewer than replicas -
maxUnavailable available ones. Every function answers the next step only; the following watch events bring the one after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.client.objects import Object, annotations_of, name_of
from atoll.controllers.deployment.revisions import DESIRED_REPLICAS, MAX_REPLICAS, age_order


@dataclass(frozen=True, slots=True)
class Resize:
    """Set `replica_set` to `replicas` pods."""

    replica_set: Object
    replicas: int


def size(replica_set: Object) -> int:
    return int(replica_set["spec"].get("replicas", 1))


def available(replica_set: Object) -> int:
    return int((replica_set.get("status") or {}).get("availableReplicas", 0))


def wanted(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def is_rolling(deployment: Object) -> bool:
    kind: str = (deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate")
    return kind == "RollingUpdate"


def fenceposts(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: surge rounds up, unavailable down, and both zero would never move, so one may be unavailable."""
    if not is_rolling(deployment):
        return 0, 0
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    replicas = wanted(deployment)
    surge = pods_of(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = pods_of(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return surge, min(unavailable, replicas)


def pods_of(value: int | str, total: int, *, up: bool) -> int:
    """A number of pods, or a percentage of `total`."""
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    share = int(value[:-1]) * total / 100
    return math.ceil(share) if up else math.floor(share)


def max_total(deployment: Object) -> int:
    return wanted(deployment) + fenceposts(deployment)[0]


def active(replica_sets: Sequence[Object]) -> list[Object]:
    return [replica_set for replica_set in replica_sets if size(replica_set)]


def new_set_size(deployment: Object, all_sets: Sequence[Object], new_size: int) -> int:
    """The next size of the new set, whose size now is `new_size`; `all_sets` includes it once it exists."""
    replicas = wanted(deployment)
    if not is_rolling(deployment) or new_size > replicas:
        return replicas
    room = max_total(deployment) - sum(map(size, all_sets))
    return new_size + max(0, min(room, replicas - new_size))


def shrink_old(deployment: Object, new_set: Object, old_sets: Sequence[Object]) -> list[Resize]:
    """One step down of the old sets: first pods that are not available anyway, then available ones as far as the promise allows."""
    everything = [*old_sets, new_set]
    minimum = wanted(deployment) - fenceposts(deployment)[1]
    missing_in_new = size(new_set) - available(new_set)
    budget = sum(map(size, everything)) - minimum - missing_in_new
    if budget <= 0:
        return []
    sizes = {name_of(old): size(old) for old in old_sets}
    ordered = sorted(active(old_sets), key=age_order)
    for old in ordered:
        broken = min(budget, max(sizes[name_of(old)] - available(old), 0))
        sizes[name_of(old)] -= broken
        budget -= broken
    spare = max(0, sum(map(available, everything)) - minimum)
    for old in ordered:
        step = min(sizes[name_of(old)], spare)
        sizes[name_of(old)] -= step
        spare -= step
    return [Resize(old, sizes[name_of(old)]) for old in ordered if sizes[name_of(old)] != size(old)]


def is_saturated(deployment: Object, new_set: Object | None) -> bool:
    """The new set alone satisfies the deployment."""
    if new_set is None:
        return False
    replicas = wanted(deployment)
    return size(new_set) == replicas == available(new_set) and annotations_of(new_set).get(DESIRED_REPLICAS) == str(replicas)


def is_scaling(deployment: Object, replica_sets: Sequence[Object]) -> bool:
    """spec.replicas changed since some active set was sized."""
    desired = str(wanted(deployment))
    return any(annotations_of(active_set).get(DESIRED_REPLICAS, desired) != desired for active_set in active(replica_sets))


def scale(deployment: Object, new_set: Object | None, old_sets: Sequence[Object]) -> list[Resize]:
    """Sizes after spec.replicas changed, or while paused. In the middle of a rollout the change is shared in proportion."""
    replicas = wanted(deployment)
    everything = [*old_sets, *([new_set] if new_set else [])]
    living = active(everything)
    if len(living) <= 1:
        only = living[0] if living else (new_set or max(old_sets, key=age_order, default=None))
        return [Resize(only, replicas)] if only is not None and size(only) != replicas else []
    if is_saturated(deployment, new_set):
        return [Resize(old, 0) for old in active(old_sets)]
    return _proportional(deployment, living) if is_rolling(deployment) else []


def _proportional(deployment: Object, living: list[Object]) -> list[Resize]:
    allowed = max_total(deployment) if wanted(deployment) else 0
    change = allowed - sum(map(size, living))
    if change > 0:
        ordered = sorted(sorted(living, key=age_order, reverse=True), key=size, reverse=True)  # large first, then new first
    else:
        ordered = sorted(sorted(living, key=age_order), key=size, reverse=True)  # large first, then old first
    sizes = {name_of(each): size(each) for each in ordered}
    added = 0
    for each in ordered:
        if change:
            share = _share(each, deployment, change, added)
            sizes[name_of(each)] += share
            added += share
    sizes[name_of(ordered[0])] = max(0, sizes[name_of(ordered[0])] + change - added)
    return [Resize(each, sizes[name_of(each)]) for each in ordered]  # unchanged ones too: their size annotations are out of date


def _share(replica_set: Object, deployment: Object, change: int, added: int) -> int:
    """What of `change` falls to this set: its fraction of the size the deployment had when the set was last sized."""
    now = size(replica_set)
    left = change - added
    if not now or not left:
        return 0
    try:
        base = int(annotations_of(replica_set).get(MAX_REPLICAS) or 0)
    except ValueError:
        base = 0
    base = base or int((deployment.get("status") or {}).get("replicas", 0)) or now
    fraction = round(now * max_total(deployment) / base) - now if wanted(deployment) else -now
    return min(fraction, left) if change > 0 else max(fraction, left)
