"""Which nodes get a daemon's pod, and the pod that goes there.

Each pod is pinned to its node by an affinity to metadata.name, so that the scheduler still checks room and reports what is missing.
"""

from __future__ import annotations

from atoll.client.nodes import (
    TAINT_DISK_PRESSURE,
    TAINT_MEMORY_PRESSURE,
    TAINT_NETWORK_UNAVAILABLE,
    TAINT_NOT_READY,
    TAINT_PID_PRESSURE,
    TAINT_UNREACHABLE,
    TAINT_UNSCHEDULABLE,
    matches_node_selector,
    taints_of,
    untolerated,
)
from atoll.client.objects import Object, copy_of, labels_of, name_of
from atoll.client.resources import DAEMON_SETS
from atoll.client.selectors import matches_map
from atoll.controllers.history import HASH_LABEL
from atoll.controllers.pods import pod_from_template

_EXISTS_EXECUTE = (TAINT_NOT_READY, TAINT_UNREACHABLE)
_EXISTS_SCHEDULE = (TAINT_DISK_PRESSURE, TAINT_MEMORY_PRESSURE, TAINT_PID_PRESSURE, TAINT_UNSCHEDULABLE)


def daemon_tolerations(spec: Object) -> list[Object]:
    """The pod's tolerations with those every daemon gets: it runs on nodes that are sick, and is not evicted."""
    tolerations = list(spec.get("tolerations") or [])
    tolerations += [{"key": key, "operator": "Exists", "effect": "NoExecute"} for key in _EXISTS_EXECUTE]
    tolerations += [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in _EXISTS_SCHEDULE]
    if spec.get("hostNetwork"):
        tolerations.append({"key": TAINT_NETWORK_UNAVAILABLE, "operator": "Exists", "effect": "NoSchedule"})
    return [each for index, each in enumerate(tolerations) if each not in tolerations[:index]]


def placement(daemon_set: Object, node: Object) -> tuple[bool, bool]:
    """(a pod should be started there, one that is there may stay)."""
    spec = daemon_set["spec"]["template"]["spec"]
    if spec.get("nodeName") and spec["nodeName"] != name_of(node):
        return False, False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not matches_map(spec.get("nodeSelector") or {}, labels_of(node)) or (required and not matches_node_selector(required, node)):
        return False, False
    tolerations = daemon_tolerations(spec)
    stays = untolerated(taints_of(node), tolerations, ["NoExecute"]) is None
    return stays and untolerated(taints_of(node), tolerations, ["NoSchedule"]) is None, stays


def make_pod(daemon_set: Object, node: str, digest: str) -> Object:
    template = copy_of(daemon_set["spec"]["template"])
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = digest
    spec = template["spec"]
    spec["tolerations"] = daemon_tolerations(spec)
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    pin = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {"nodeSelectorTerms": [{}]}
    terms = [{**term, "matchFields": [pin]} for term in required["nodeSelectorTerms"]]
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    return pod_from_template(template, daemon_set, DAEMON_SETS)


def node_of(pod: Object) -> str | None:
    """The node the pod is on or pinned to."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in affinity.get("nodeSelectorTerms") or ():
        for pin in term.get("matchFields") or ():
            if pin["key"] == "metadata.name" and pin["operator"] == "In" and len(pin["values"]) == 1:
                return str(pin["values"][0])
    return None
