"""InterPodAffinity: near to or far from other pods, by the value of a node label (the topology).

Three tests: the pod's required affinity, its required anti-affinity, and the required anti-affinity of the pods already there, which is
symmetric. What the pods of the cluster say is counted once for each pod to place; each node is then one lookup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from atoll.client.objects import Object, labels_of, namespace_of
from atoll.client.selectors import matches
from atoll.scheduler.plugins.base import SCORE_MAX, Filter, Rejection
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
NO_AFFINITY = Rejection(("node(s) didn't match pod affinity rules",))
ANTI_AFFINITY = Rejection(("node(s) didn't match pod anti-affinity rules",), resolvable=True)
EXISTING_ANTI_AFFINITY = Rejection(("node(s) didn't satisfy existing pods anti-affinity rules",), resolvable=True)

Topology = tuple[str, str]  # label and value


def terms_of(pod: Object, side: str, strength: str) -> list[Object]:
    """`side` is podAffinity or podAntiAffinity. Preferred terms carry a weight around the term."""
    return ((pod["spec"].get("affinity") or {}).get(side) or {}).get(strength) or []


def selects(term: Object, owner: Object, other: Object, snapshot: Snapshot) -> bool:
    """The term of pod `owner` selects pod `other`: by namespace, then by labels."""
    namespace = namespace_of(other) or ""
    named = term.get("namespaces") or []
    by_label = term.get("namespaceSelector")
    if by_label is not None:
        inside = namespace in named or matches(by_label, snapshot.namespaces.get(namespace, {}))
    else:
        inside = namespace in (named or [namespace_of(owner)])
    return inside and matches(_merged(term, owner), labels_of(other))


def _merged(term: Object, owner: Object) -> Object | None:
    """LabelSelector with matchLabelKeys and mismatchLabelKeys, which take their values from the owner's labels."""
    selector: Object | None = term.get("labelSelector")
    keys, others = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    if not keys and not others:
        return selector
    labels = labels_of(owner)
    extra = [{"key": key, "operator": "In", "values": [labels[key]]} for key in keys if key in labels]
    extra += [{"key": key, "operator": "NotIn", "values": [labels[key]]} for key in others if key in labels]
    return {**(selector or {}), "matchExpressions": [*((selector or {}).get("matchExpressions") or ()), *extra]}


def prepare(info: PodInfo, snapshot: Snapshot) -> Filter | None:
    pod = info.pod
    near, far = terms_of(pod, "podAffinity", REQUIRED), terms_of(pod, "podAntiAffinity", REQUIRED)
    near_counts = [Counter[str]() for _ in near]
    far_counts = [Counter[str]() for _ in far]
    forbidden: set[Topology] = set()
    for node in snapshot.nodes.values():
        for other in node.pods:
            _count(near, near_counts, pod, other.pod, node, snapshot)
            _count(far, far_counts, pod, other.pod, node, snapshot)
            for term in terms_of(other.pod, "podAntiAffinity", REQUIRED):
                value = node.labels.get(term["topologyKey"])
                if value is not None and selects(term, other.pod, pod, snapshot):
                    forbidden.add((term["topologyKey"], value))
    if not near and not far and not forbidden:
        return None
    # The first pod of a group that wants to be near its own kind may go anywhere.
    first = not any(near_counts) and all(selects(term, pod, pod, snapshot) for term in near)

    def test(node: NodeInfo) -> Rejection | None:
        for term, counts in zip(near, near_counts, strict=True):
            value = node.labels.get(term["topologyKey"])
            if value is None or not (counts[value] or first):
                return NO_AFFINITY
        for term, counts in zip(far, far_counts, strict=True):
            value = node.labels.get(term["topologyKey"])
            if value is not None and counts[value]:
                return ANTI_AFFINITY
        return EXISTING_ANTI_AFFINITY if any(node.labels.get(key) == value for key, value in forbidden) else None

    return test


def _count(terms: Iterable[Object], counts: Iterable[Counter[str]], pod: Object, other: Object, node: NodeInfo, snapshot: Snapshot) -> None:
    for term, counter in zip(terms, counts, strict=True):
        value = node.labels.get(term["topologyKey"])
        if value is not None and selects(term, pod, other, snapshot):
            counter[value] += 1


def score(info: PodInfo, nodes: Sequence[NodeInfo], snapshot: Snapshot) -> list[float]:
    weights: Counter[Topology] = Counter()
    pod = info.pod
    mine = [(each["weight"], each["podAffinityTerm"]) for each in terms_of(pod, "podAffinity", PREFERRED)]
    mine += [(-each["weight"], each["podAffinityTerm"]) for each in terms_of(pod, "podAntiAffinity", PREFERRED)]
    for node in snapshot.nodes.values():
        for other in node.pods:
            theirs = [(each["weight"], each["podAffinityTerm"]) for each in terms_of(other.pod, "podAffinity", PREFERRED)]
            theirs += [(-each["weight"], each["podAffinityTerm"]) for each in terms_of(other.pod, "podAntiAffinity", PREFERRED)]
            for weight, term in mine:
                _weigh(weights, weight, term, node, met=selects(term, pod, other.pod, snapshot))
            for weight, term in theirs:
                _weigh(weights, weight, term, node, met=selects(term, other.pod, pod, snapshot))
    if not weights:
        return [0.0] * len(nodes)
    raw = [sum(weight for (key, value), weight in weights.items() if node.labels.get(key) == value) for node in nodes]
    low, high = min(raw), max(raw)
    return [SCORE_MAX * (value - low) / (high - low) if high > low else 0.0 for value in raw]


def _weigh(weights: Counter[Topology], weight: int, term: Object, node: NodeInfo, *, met: bool) -> None:
    value = node.labels.get(term["topologyKey"])
    if met and value is not None:
        weights[term["topologyKey"], value] += weight
