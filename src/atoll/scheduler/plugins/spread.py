"""PodTopologySpread: how unevenly pods of one kind may lie over zones, hosts or any other node label.

For each constraint: the pods it selects are counted for each value of its topology key; a node will do when its count, with this pod,
exceeds the smallest by no more than maxSkew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from atoll.client.nodes import matches_node_selector, taints_of, untolerated
from atoll.client.objects import Object, is_deleting, labels_of, namespace_of
from atoll.client.selectors import matches, matches_map
from atoll.scheduler.plugins.base import Filter, Rejection, normalized
from atoll.scheduler.plugins.taints import FENCING
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

SKEWED = Rejection(("node(s) didn't match pod topology spread constraints",), resolvable=True)
NO_LABEL = Rejection(("node(s) didn't match pod topology spread constraints (missing required label)",))


def constraints_of(pod: Object, action: str) -> list[Object]:
    return [each for each in pod["spec"].get("topologySpreadConstraints") or () if each.get("whenUnsatisfiable", "DoNotSchedule") == action]


def selector_of(constraint: Object, pod: Object) -> Object | None:
    """LabelSelector with the pod's own values of matchLabelKeys added."""
    selector: Object | None = constraint.get("labelSelector")
    labels = labels_of(pod)
    keys = [key for key in constraint.get("matchLabelKeys") or () if key in labels]
    if not keys:
        return selector
    return {**(selector or {}), "matchLabels": {**((selector or {}).get("matchLabels") or {}), **{key: labels[key] for key in keys}}}


def counts_by_topology(constraint: Object, pod: Object, snapshot: Snapshot) -> Counter[str]:
    """Of every eligible value of the key the number of selected pods, 0 included."""
    selector, namespace = selector_of(constraint, pod), namespace_of(pod)
    counts: Counter[str] = Counter()
    for node in snapshot.nodes.values():
        value = node.labels.get(constraint["topologyKey"])
        if value is None or not _counts_node(constraint, pod, node):
            continue
        counts[value] += sum(
            namespace_of(other.pod) == namespace and not is_deleting(other.pod) and matches(selector, labels_of(other.pod))
            for other in node.pods
        )
    return counts


def _counts_node(constraint: Object, pod: Object, node: NodeInfo) -> bool:
    spec = pod["spec"]
    if constraint.get("nodeAffinityPolicy", "Honor") == "Honor":
        required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        if not matches_map(spec.get("nodeSelector") or {}, node.labels) or (required and not matches_node_selector(required, node.node)):
            return False
    if constraint.get("nodeTaintsPolicy", "Ignore") == "Honor":
        return untolerated(taints_of(node.node), spec.get("tolerations") or (), FENCING) is None
    return True


def prepare(info: PodInfo, snapshot: Snapshot) -> Filter | None:
    pod = info.pod
    hard = constraints_of(pod, "DoNotSchedule")
    if not hard:
        return None
    tests = []
    for constraint in hard:
        counts = counts_by_topology(constraint, pod, snapshot)
        lowest = min(counts.values(), default=0) if len(counts) >= constraint.get("minDomains", 1) else 0
        itself = int(matches(selector_of(constraint, pod), labels_of(pod)))
        tests.append((constraint["topologyKey"], counts, lowest + constraint["maxSkew"] - itself))

    def test(node: NodeInfo) -> Rejection | None:
        for key, counts, limit in tests:
            value = node.labels.get(key)
            if value is None:
                return NO_LABEL
            if counts[value] > limit:
                return SKEWED
        return None

    return test


def score(info: PodInfo, nodes: Sequence[NodeInfo], snapshot: Snapshot) -> list[float]:
    pod = info.pod
    soft = constraints_of(pod, "ScheduleAnyway")
    if not soft:
        return [0.0] * len(nodes)
    totals = [0.0] * len(nodes)
    for constraint in soft:
        counts = counts_by_topology(constraint, pod, snapshot)
        worst = max(counts.values(), default=0) + 1
        for index, node in enumerate(nodes):
            value = node.labels.get(constraint["topologyKey"])
            totals[index] += worst if value is None else counts[value]
    return normalized(totals, reverse=True)
