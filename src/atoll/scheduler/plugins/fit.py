"""NodeResourcesFit and NodeResourcesBalancedAllocation: room for what the pod asks, then the emptier and the more evenly used node."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.scheduler.plugins.base import SCORE_MAX, Filter, Rejection
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot


def prepare(info: PodInfo, _snapshot: Snapshot) -> Filter | None:
    asked = [(name, amount) for name, amount in info.requests.items() if amount]

    def test(node: NodeInfo) -> Rejection | None:
        reasons = []
        hopeless = False
        if len(node.pods) + 1 > node.allocatable.get("pods", 0):
            reasons.append("Too many pods")
        for name, amount in asked:
            total = node.allocatable.get(name, 0)
            if amount > total - node.requested.get(name, 0):
                reasons.append(f"Insufficient {name}")
                hopeless = hopeless or amount > total
        return Rejection(tuple(reasons), resolvable=not hopeless) if reasons else None

    return test


def _shares(info: PodInfo, node: NodeInfo) -> tuple[float, float]:
    """Of CPU and memory, the part in use once the pod is there; at most all."""
    used = (node.scored[0] + info.scored[0], node.scored[1] + info.scored[1])
    totals = (node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0))
    cpu, memory = (min(1.0, amount / total) if total else 1.0 for amount, total in zip(used, totals, strict=True))
    return cpu, memory


def score_least(info: PodInfo, nodes: Sequence[NodeInfo], _snapshot: Snapshot) -> list[float]:
    return [SCORE_MAX * (1 - sum(_shares(info, node)) / 2) for node in nodes]


def score_balance(info: PodInfo, nodes: Sequence[NodeInfo], _snapshot: Snapshot) -> list[float]:
    def spread(node: NodeInfo) -> float:
        cpu, memory = _shares(info, node)
        return abs(cpu - memory) / 2  # the standard deviation of two numbers

    return [SCORE_MAX * (1 - spread(node)) for node in nodes]
