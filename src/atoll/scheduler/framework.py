"""One scheduling cycle: filters in order, scores with weights, and the words for a pod that fits nowhere. Pure.

The order of filters is upstream's, since the first rejection of a node is the one that is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from atoll.client.objects import uid_of
from atoll.scheduler.plugins import fit, imagelocality, interpod, nodeaffinity, nodename, nodeports, spread, taints, volumebinding
from atoll.scheduler.plugins.base import Filter, Prepare, Rejection, Score, Unschedulable
from atoll.scheduler.requests import PodInfo, priority_of
from atoll.scheduler.snapshot import NodeInfo, Snapshot

FIT, PORTS, VOLUMES = "NodeResourcesFit", "NodePorts", "VolumeBinding"
SPREAD, INTER_POD = "PodTopologySpread", "InterPodAffinity"

FILTERS: tuple[tuple[str, Prepare], ...] = (
    ("NodeUnschedulable", nodename.prepare_unschedulable),
    ("NodeName", nodename.prepare_name),
    ("TaintToleration", taints.prepare),
    ("NodeAffinity", nodeaffinity.prepare),
    (PORTS, nodeports.prepare),
    (FIT, fit.prepare),
    (VOLUMES, volumebinding.prepare),
    (SPREAD, spread.prepare),
    (INTER_POD, interpod.prepare),
)

# Upstream's default weights.
SCORES: tuple[tuple[int, Score], ...] = (
    (3, taints.score),
    (2, nodeaffinity.score),
    (2, spread.score),
    (2, interpod.score),
    (1, fit.score_least),
    (1, fit.score_balance),
    (1, imagelocality.score),
)


@dataclass(slots=True)
class FitError(Exception):
    """The pod fits nowhere. `plugins` are those that said no, `rejected` what they said of each node, `preemption` what came of looking
    for victims.
    """

    total: int
    plugins: set[str] = field(default_factory=set)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    before_nodes: str = ""
    preemption: str = ""

    def __str__(self) -> str:
        """Upstream's sentence: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: ...`."""
        if not self.total:
            return "no nodes available to schedule pods"
        text = self.before_nodes or count_reasons(self.rejected.values())
        sentence = f"0/{self.total} nodes are available: {text}."
        return f"{sentence} {self.preemption}" if self.preemption else sentence


def count_reasons(rejections: Iterable[Rejection]) -> str:
    counts = Counter(reason for rejection in rejections for reason in rejection.reasons)
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))


def prepare(info: PodInfo, snapshot: Snapshot) -> list[tuple[str, Filter]]:
    """The filters that concern the pod. Raises FitError when one of them rules out every node."""
    active = []
    for name, plugin in FILTERS:
        try:
            test = plugin(info, snapshot)
        except Unschedulable as verdict:
            raise FitError(len(snapshot.nodes), {name}, before_nodes=str(verdict)) from None
        if test is not None:
            active.append((name, test))
    return active


def find_feasible(info: PodInfo, snapshot: Snapshot) -> list[NodeInfo]:
    """The nodes that pass every filter; only the one promised to the pod, where that does. Raises FitError when there is none."""
    nominated = (info.pod.get("status") or {}).get("nominatedNodeName") or ""
    if nominated in snapshot.nodes and fits(info, snapshot, nominated):
        return [snapshot.nodes[nominated]]
    active = prepare(info, snapshot)
    error = FitError(len(snapshot.nodes))
    feasible = []
    for name, node in snapshot.nodes.items():
        refused = _refusal(active, node)
        if refused is None and name in snapshot.nominated:
            refused = _refusal_of_promised(info, snapshot, node)
        if refused is None:
            feasible.append(node)
        else:
            plugin, error.rejected[name] = refused
            error.plugins.add(plugin)
    if not feasible:
        raise error
    return feasible


def fits(info: PodInfo, snapshot: Snapshot, name: str) -> bool:
    """Whether the pod passes every filter on one node."""
    node = snapshot.nodes[name]
    try:
        return _refusal(prepare(info, snapshot), node) is None and _refusal_of_promised(info, snapshot, node) is None
    except FitError:
        return False


def _refusal(active: Sequence[tuple[str, Filter]], node: NodeInfo) -> tuple[str, Rejection] | None:
    for name, test in active:
        rejection = test(node)
        if rejection is not None:
            return name, rejection
    return None


def _refusal_of_promised(info: PodInfo, snapshot: Snapshot, node: NodeInfo) -> tuple[str, Rejection] | None:
    """The same with the pods there that the node is promised to and that this one may not push aside. It must pass both ways: those pods
    may come or not, and this one may want to be near them.
    """
    uid, priority = uid_of(info.pod), priority_of(info.pod)
    coming = [each for each in snapshot.nominated.get(node.name, ()) if uid_of(each.pod) != uid and priority_of(each.pod) >= priority]
    if not coming:
        return None
    then = snapshot.with_pods(node, [*node.pods, *coming])
    try:
        return _refusal(prepare(info, then), then.nodes[node.name])
    except FitError as error:
        return next(iter(error.plugins)), Rejection((error.before_nodes,))


def choose(info: PodInfo, feasible: Sequence[NodeInfo], snapshot: Snapshot, jitter: Callable[[], float]) -> NodeInfo:
    """The node with the most points; among equals one at random (`jitter` in [0, 1))."""
    if len(feasible) == 1:
        return feasible[0]
    totals = [0.0] * len(feasible)
    for weight, plugin in SCORES:
        for index, points in enumerate(plugin(info, feasible, snapshot)):
            totals[index] += weight * points
    top = max(totals)
    best = [node for node, points in zip(feasible, totals, strict=True) if points == top]
    return best[int(jitter() * len(best))]
