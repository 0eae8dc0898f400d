"""NodePorts: two pods of one node cannot have the same host port."""

from __future__ import annotations

from atoll.scheduler.plugins.base import Filter, Rejection
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

TAKEN = Rejection(("node(s) didn't have free ports for the requested pod ports",), resolvable=True)


def prepare(info: PodInfo, _snapshot: Snapshot) -> Filter | None:
    if not info.ports:
        return None

    def test(node: NodeInfo) -> Rejection | None:
        return TAKEN if any(port.conflicts(other) for port in info.ports for other in node.ports) else None

    return test
