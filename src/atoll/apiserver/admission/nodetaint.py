"""TaintNodesByCondition: a node that registers takes no pods until the node controller has seen it ready."""

from __future__ import annotations

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.items import Object

_TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def taint_new_node(_core: Core, _call: Call, new: Object) -> None:
    taints = new.setdefault("spec", {}).setdefault("taints", [])
    if not any((taint.get("key"), taint.get("effect")) == (_TAINT["key"], _TAINT["effect"]) for taint in taints):
        taints.append(dict(_TAINT))
