"""NodeAffinity: spec.nodeSelector and the required and preferred node affinity."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.client.nodes import matches_node_selector, matches_term
from atoll.client.selectors import matches_map
from atoll.scheduler.plugins.base import Filter, Rejection, normalized
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

MISMATCH = Rejection(("node(s) didn't match Pod's node affinity/selector",))


def prepare(info: PodInfo, _snapshot: Snapshot) -> Filter | None:
    spec = info.pod["spec"]
    labels = spec.get("nodeSelector") or {}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not labels and required is None:
        return None

    def test(node: NodeInfo) -> Rejection | None:
        if not matches_map(labels, node.labels):
            return MISMATCH
        return None if required is None or matches_node_selector(required, node.node) else MISMATCH

    return test


def score(info: PodInfo, nodes: Sequence[NodeInfo], _snapshot: Snapshot) -> list[float]:
    affinity = (info.pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    if not preferred:
        return [0.0] * len(nodes)
    return normalized([sum(each["weight"] for each in preferred if matches_term(each["preference"], node.node)) for node in nodes])
