"""Nodes: a kubelet registers its node with its status, so creation keeps it."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.pod_spec import TAINT_EFFECTS
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_UPDATE_FORBIDDEN = (
    "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)"
)
_SET_ONCE = ("podCIDR", "podCIDRs", "providerID")


class NodeRules(Rules):
    def default(self, obj: Object) -> None:
        obj.setdefault("spec", {})
        status = obj.setdefault("status", {})
        if status.get("capacity") and "allocatable" not in status:
            status["allocatable"] = dict(status["capacity"])

    def initial_status(self, obj: ReadOnly) -> Object:
        return dict(obj.get("status") or {})

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        taken: set[tuple[str, str]] = set()
        for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
            path = f"spec.taints[{index}]"
            key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
            causes.each(f"{path}.key", key, names.qualified_name(key))
            causes.each(f"{path}.value", value, names.label_value(value))
            causes.one_of(f"{path}.effect", effect, TAINT_EFFECTS)
            if (key, effect) in taken:
                causes.duplicate(path, taint)
            taken.add((key, effect))

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        after, before = new.get("spec") or {}, old.get("spec") or {}
        for field in _SET_ONCE:
            if before.get(field) and after.get(field) != before[field]:
                causes.forbidden(f"spec.{field}", _UPDATE_FORBIDDEN)

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"spec.unschedulable": "true" if (obj.get("spec") or {}).get("unschedulable") else "false"}


RULES = NodeRules()
