"""The next step of a stateful set. Pure.

OrderedReady moves one pod at a time: up from the lowest ordinal, each only when all before it are available; down from the highest.
Parallel takes all steps at once. A rolling update deletes pods of other revisions from the highest ordinal down to the partition, and
waits for each to be available again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.client.objects import Object, is_deleting, labels_of
from atoll.controllers.history import HASH_LABEL
from atoll.controllers.pods import BURST, is_available, is_finished
from atoll.controllers.statefulset.identity import ordinal_of


@dataclass(slots=True)
class Plan:
    """Ordinals to create, and pods to delete; `recreate` are those among them that ended and will come again."""

    create: list[int] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    recreate: list[Object] = field(default_factory=list)


def ordinals(stateful_set: Object) -> range:
    start = (stateful_set["spec"].get("ordinals") or {}).get("start", 0)
    return range(start, start + int(stateful_set["spec"].get("replicas", 1)))


def is_ordered(stateful_set: Object) -> bool:
    policy: str = stateful_set["spec"].get("podManagementPolicy", "OrderedReady")
    return policy == "OrderedReady"


def partition(stateful_set: Object) -> int:
    """The first ordinal that a rolling update touches, counted from the start ordinal."""
    return int(((stateful_set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition", 0))


def is_rolling(stateful_set: Object) -> bool:
    kind: str = (stateful_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    return kind == "RollingUpdate"


def by_ordinal(stateful_set: Object, pods: Sequence[Object]) -> dict[int, Object]:
    return {ordinal: pod for pod in pods if (ordinal := ordinal_of(stateful_set, pod)) is not None}


def needs_old_revision(stateful_set: Object, pods: Mapping[int, Object], ordinal: int, current: str) -> bool:
    """A pod made now belongs to the revision before the update: below the partition, or not reached by the update yet."""
    if not is_rolling(stateful_set):
        return False
    index = ordinal - ordinals(stateful_set).start
    if partition(stateful_set):
        return index < partition(stateful_set)
    return index < sum(labels_of(pod).get(HASH_LABEL) == current and not is_deleting(pod) for pod in pods.values())


def plan(stateful_set: Object, pods: Mapping[int, Object], update_revision: str, now: float) -> Plan:
    """`pods` are those of the set by ordinal."""
    made = Plan()
    ordered = is_ordered(stateful_set)
    wanted = ordinals(stateful_set)
    min_ready = stateful_set["spec"].get("minReadySeconds", 0)

    def healthy(pod: Object) -> bool:
        return not is_deleting(pod) and is_available(pod, min_ready, now)

    for ordinal in wanted:
        pod = pods.get(ordinal)
        if pod is None:
            made.create.append(ordinal)
            if len(made.create) == BURST:
                break  # what these come to brings the next pass
        elif is_finished(pod) and not is_deleting(pod):
            made.recreate.append(pod)
        elif healthy(pod):
            continue
        if ordered:
            made.delete += made.recreate
            return made
    ill = min((each for each, pod in pods.items() if not healthy(pod)), default=None)
    for ordinal in sorted((each for each in pods if each not in wanted), reverse=True):
        pod = pods[ordinal]
        # One that is ill may go, unless one before it is ill too: then something is wrong, and the set holds still.
        if not is_deleting(pod) and not (ordered and not healthy(pod) and ordinal != ill):
            made.delete.append(pod)
        if ordered:
            break
    made.delete += made.recreate
    if made.create or made.delete or not is_rolling(stateful_set) or any(ordinal not in wanted for ordinal in pods):
        return made
    _plan_update(stateful_set, pods, update_revision, made, [pod for pod in pods.values() if not healthy(pod)])
    return made


def _plan_update(stateful_set: Object, pods: Mapping[int, Object], update_revision: str, made: Plan, unhealthy: list[Object]) -> None:
    wanted = ordinals(stateful_set)
    for ordinal in reversed(wanted[partition(stateful_set) :]):
        pod = pods[ordinal]
        if labels_of(pod).get(HASH_LABEL) != update_revision and not is_deleting(pod):
            made.delete.append(pod)
            return
        if pod in unhealthy:
            return


def count(stateful_set: Object, pods: Sequence[Object], current: str, update: str, now: float) -> Object:
    """The status, completed updates folded in: then the current revision is the update's."""
    old = stateful_set.get("status") or {}
    min_ready = stateful_set["spec"].get("minReadySeconds", 0)
    alive = [pod for pod in pods if not is_finished(pod)]
    of_set = [pod for pod in alive if not is_deleting(pod)]
    status: Object = {
        "replicas": len(alive),
        "readyReplicas": sum(is_available(pod, 0, now) for pod in alive),
        "availableReplicas": sum(is_available(pod, min_ready, now) for pod in alive),
        "currentReplicas": sum(labels_of(pod).get(HASH_LABEL) == current for pod in of_set),
        "updatedReplicas": sum(labels_of(pod).get(HASH_LABEL) == update for pod in of_set),
    }
    replicas = len(ordinals(stateful_set))
    done = status["updatedReplicas"] == status["readyReplicas"] == status["replicas"] == replicas
    if done and is_rolling(stateful_set) and not partition(stateful_set):
        current = update
        status["currentReplicas"] = status["updatedReplicas"]
    status = {field: number for field, number in status.items() if number or field in ("replicas", "availableReplicas")}
    status |= {"currentRevision": current, "updateRevision": update, "observedGeneration": stateful_set["metadata"].get("generation", 0)}
    status["collisionCount"] = old.get("collisionCount", 0)
    return status
