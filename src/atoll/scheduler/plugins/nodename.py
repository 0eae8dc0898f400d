"""Nodes named or fenced off: fields that decide without regard to room. (NodeName is here for pods that carry a nodeName and are looked
at again.)
"""

from __future__ import annotations

from atoll.client.nodes import TAINT_UNSCHEDULABLE, tolerates
from atoll.scheduler.plugins.base import Filter, Rejection
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

WRONG_NAME = Rejection(("node(s) didn't match the requested node name",))
CORDONED = Rejection(("node(s) were unschedulable",))


def prepare_name(info: PodInfo, _snapshot: Snapshot) -> Filter | None:
    wanted = info.pod["spec"].get("nodeName")
    return None if not wanted else lambda node: None if node.name == wanted else WRONG_NAME


def prepare_unschedulable(info: PodInfo, _snapshot: Snapshot) -> Filter | None:
    taint = {"key": TAINT_UNSCHEDULABLE, "effect": "NoSchedule"}
    if any(tolerates(each, taint) for each in info.pod["spec"].get("tolerations") or ()):
        return None

    def test(node: NodeInfo) -> Rejection | None:
        return CORDONED if (node.node.get("spec") or {}).get("unschedulable") else None

    return test
