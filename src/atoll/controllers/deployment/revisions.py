"""Which replica set is which revision of a deployment's template.

A replica set belongs to the current template when the two are equal but for the pod-template-hash label. Its name ends in that hash;
its annotation `deployment.kubernetes.io/revision` numbers it, which is what `kubectl rollout history` and `undo` read.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from atoll.client.objects import Object, annotations_of, copy_of, is_deleting, name_of, namespace_of, owner_reference
from atoll.client.resources import DEPLOYMENTS

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
REVISION_HISTORY_MAX = 2000  # characters, upstream's maxRevHistoryLengthInChars
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes (apimachinery, rand.SafeEncodeString)
_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619


def template_hash(template: Object, collisions: int | None = None) -> str:
    """FNV-1a of the template in canonical JSON, spelt in safe letters. `collisions` salts it after a name was taken by another template."""
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    if collisions is not None:
        data += collisions.to_bytes(8, "little")
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(value))


def same_template(one: Object, other: Object) -> bool:
    """Equal but for the hash label."""
    return _without_hash(one) == _without_hash(other)


def _without_hash(template: Object) -> Object:
    meta = template.get("metadata") or {}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    bare = {key: value for key, value in meta.items() if key not in ("labels", "creationTimestamp") and value}
    return {"metadata": bare | ({"labels": labels} if labels else {}), "spec": template["spec"]}


def age_order(replica_set: Object) -> tuple[str, str]:
    return (replica_set["metadata"].get("creationTimestamp", ""), name_of(replica_set))


def find_new(deployment: Object, replica_sets: Iterable[Object]) -> Object | None:
    """The set of the current template; of several the oldest, so that every reader chooses the same."""
    template = deployment["spec"]["template"]
    for replica_set in sorted(replica_sets, key=age_order):
        if same_template(replica_set["spec"]["template"], template):
            return replica_set
    return None


def revision_of(obj: Object) -> int:
    """0 where there is none."""
    try:
        return int(annotations_of(obj).get(REVISION) or 0)
    except ValueError:
        return 0


def next_revision(old_sets: Iterable[Object]) -> int:
    return max((revision_of(replica_set) for replica_set in old_sets), default=0) + 1


def new_annotations(deployment: Object, replica_set: Object, revision: int, *, exists: bool) -> dict[str, str]:
    """The annotations of the new replica set: those of the deployment, its revision, and for one that comes back by an undo, the
    revisions it had.
    """
    annotations = dict(annotations_of(replica_set))
    annotations.update({key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED})
    old = annotations.get(REVISION)
    if revision_of(replica_set) < revision:
        annotations[REVISION] = str(revision)
        if exists and old:
            history = [*filter(None, annotations.get(REVISION_HISTORY, "").split(",")), old]
            while sum(map(len, history)) + len(history) > REVISION_HISTORY_MAX:
                history.pop(0)
            annotations[REVISION_HISTORY] = ",".join(history)
    return annotations


def size_annotations(replicas: int, max_replicas: int) -> dict[str, str]:
    """What a set was sized for: a difference to the deployment's replicas later means "scale", not "roll out"."""
    return {DESIRED_REPLICAS: str(replicas), MAX_REPLICAS: str(max_replicas)}


def make_replica_set(deployment: Object, revision: int, collisions: int | None) -> Object:
    """The replica set of the current template, without replicas yet."""
    spec = deployment["spec"]
    digest = template_hash(spec["template"], collisions)
    template = copy_of(spec["template"])
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = digest
    selector = copy_of(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = digest
    made: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name_of(deployment)}-{digest}",
            "namespace": namespace_of(deployment),
            "labels": dict(template["metadata"]["labels"]),
            "ownerReferences": [owner_reference(deployment, DEPLOYMENTS)],
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        made["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    made["metadata"]["annotations"] = new_annotations(deployment, made, revision, exists=False)
    return made


def expired_history(deployment: Object, old_sets: Iterable[Object]) -> list[Object]:
    """Empty old sets beyond spec.revisionHistoryLimit, oldest revision first."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    alive = sorted((old for old in old_sets if not is_deleting(old)), key=lambda old: (revision_of(old), age_order(old)))
    surplus = alive[: max(len(alive) - limit, 0)]
    return [old for old in surplus if _is_settled_empty(old)]


def _is_settled_empty(replica_set: Object) -> bool:
    status = replica_set.get("status") or {}
    seen = status.get("observedGeneration", 0) >= replica_set["metadata"].get("generation", 0)
    return seen and not status.get("replicas") and not replica_set["spec"].get("replicas", 1)
