"""DefaultPreemption: which pods of lower priority would have to go, and on which node, so that this one fits. Pure.

On each node whose rejection may be cured, all lower pods are thought away; when the pod then fits, they are brought back one by one,
the highest first, as long as it still fits. Of the nodes so found the one is taken whose victims hurt least.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.client.objects import Object, is_deleting
from atoll.scheduler.framework import FitError, fits
from atoll.scheduler.requests import PodInfo, priority_of
from atoll.scheduler.snapshot import NodeInfo, Snapshot

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


@dataclass(frozen=True, slots=True)
class Preemption:
    node: str
    victims: tuple[Object, ...]


WITHDRAWN = Preemption("", ())  # a node was promised, and nothing comes of it


def find(info: PodInfo, snapshot: Snapshot, error: FitError) -> Preemption | None:
    """The least harmful preemption; None, with the reason written into `error`, when there is none."""
    if info.pod["spec"].get("preemptionPolicy") == "Never":
        error.preemption = "preemption: not eligible due to preemptionPolicy=Never."
        return None
    curable = [name for name, rejection in error.rejected.items() if rejection.resolvable]
    found = [each for name in curable if (each := _on_node(info, snapshot, snapshot.nodes[name])) is not None]
    if found:
        return min(found, key=_harm)
    hopeless = error.total - len(curable)
    parts = [f"{len(curable)} {NO_VICTIMS}"] if curable else []
    parts += [f"{hopeless} {NOT_HELPFUL}"] if hopeless else []
    error.preemption = f"preemption: 0/{error.total} nodes are available: {', '.join(sorted(parts))}."
    return None


def _on_node(info: PodInfo, snapshot: Snapshot, node: NodeInfo) -> Preemption | None:
    mine = priority_of(info.pod)
    lower = [each for each in node.pods if priority_of(each.pod) < mine]
    kept = [each for each in node.pods if priority_of(each.pod) >= mine]
    if not lower or not fits(info, snapshot.with_pods(node, kept), node.name):
        return None
    victims = []
    for each in sorted(lower, key=lambda other: (-priority_of(other.pod), other.pod["metadata"].get("creationTimestamp", ""))):
        if fits(info, snapshot.with_pods(node, [*kept, each]), node.name):
            kept.append(each)
        else:
            victims.append(each.pod)
    return Preemption(node.name, tuple(victims)) if victims else None


def _harm(preemption: Preemption) -> tuple[int, int, int, str]:
    priorities = [priority_of(pod) for pod in preemption.victims]
    return max(priorities), sum(priorities), len(priorities), preemption.node


def is_under_way(info: PodInfo, snapshot: Snapshot) -> bool:
    """Victims of an earlier preemption for this pod are still ending on the node it was promised."""
    node = snapshot.nodes.get((info.pod.get("status") or {}).get("nominatedNodeName") or "")
    mine = priority_of(info.pod)
    return node is not None and any(is_deleting(each.pod) and priority_of(each.pod) < mine for each in node.pods)
