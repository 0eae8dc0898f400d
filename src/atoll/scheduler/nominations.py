"""Nodes promised to pods whose preemption is under way: what victims give up is held against pods of the same or lower priority.

A promise is made in memory by the decision itself, and told in the pod's status.nominatedNodeName a little later; after a restart it is
read from there. It ends when the pod is placed or goes, when its status takes it back, or when its next attempt finds no victims any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from atoll.client.objects import Object, uid_of
from atoll.scheduler.requests import PodInfo, pod_info


class Nominations:
    """Mutable; `by_node` answers an immutable view."""

    def __init__(self) -> None:
        self._promised: dict[str, tuple[str, PodInfo]] = {}  # uid → node and pod
        self._by_node: dict[str, Sequence[PodInfo]] = {}

    @property
    def by_node(self) -> Mapping[str, Sequence[PodInfo]]:
        return self._by_node

    def add(self, pod: Object, node: str) -> None:
        self._promised[uid_of(pod)] = node, pod_info(pod)
        self._arrange()

    def follow(self, old: Object | None, new: Object) -> bool:
        """A waiting pod as the API tells it; a status that has yet to hear of the promise takes nothing back. True when one ends."""
        told, before = _told(new), _told(old)
        known = self._promised.get(uid_of(new))
        if told:
            if known is None or known[0] != told:
                self._promised[uid_of(new)] = told, pod_info(new)
                self._arrange()
                return known is not None
            return False
        return known is not None and before == known[0] and self.remove(new)

    def remove(self, pod: Object) -> bool:
        """True when there was a promise."""
        if self._promised.pop(uid_of(pod), None) is None:
            return False
        self._arrange()
        return True

    def _arrange(self) -> None:
        by_node: dict[str, Sequence[PodInfo]] = {}
        for node, info in self._promised.values():
            by_node[node] = (*by_node.get(node, ()), info)
        self._by_node = by_node


def _told(pod: Object | None) -> str:
    return ((pod or {}).get("status") or {}).get("nominatedNodeName") or ""
