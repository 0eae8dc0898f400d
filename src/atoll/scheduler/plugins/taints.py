"""TaintToleration: NoSchedule and NoExecute taints need a toleration; PreferNoSchedule ones cost points."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.client.nodes import taints_of, tolerates, untolerated
from atoll.scheduler.plugins.base import Filter, Rejection, normalized
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

FENCING = ("NoSchedule", "NoExecute")


def prepare(info: PodInfo, _snapshot: Snapshot) -> Filter | None:
    tolerations = info.pod["spec"].get("tolerations") or ()

    def test(node: NodeInfo) -> Rejection | None:
        taint = untolerated(taints_of(node.node), tolerations, FENCING)
        if taint is None:
            return None
        return Rejection((f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}",))

    return test


def score(info: PodInfo, nodes: Sequence[NodeInfo], _snapshot: Snapshot) -> list[float]:
    tolerations = [each for each in info.pod["spec"].get("tolerations") or () if each.get("effect") in (None, "", "PreferNoSchedule")]
    counts = [
        sum(
            taint["effect"] == "PreferNoSchedule" and not any(tolerates(each, taint) for each in tolerations)
            for taint in taints_of(node.node)
        )
        for node in nodes
    ]
    return normalized(counts, reverse=True)
