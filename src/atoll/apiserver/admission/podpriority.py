"""Priority: a pod's priority is its class's, by name or by default; never the caller's own number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object


def resolve_priority(core: Core, call: Call, new: Object) -> None:
    """Raises StatusError 403 for an unknown class or a priority that is not its class's."""
    spec = new.setdefault("spec", {})
    name = spec.get("priorityClassName")
    found: dict[str, Any] | None
    if name:
        item = core.find("scheduling.k8s.io", "v1", "priorityclasses", name)
        if item is None:
            raise statuses.forbidden(call.kind, call.name, f"no PriorityClass with name {name} was found")
        found = item.obj
    else:
        found = _default(core)
    value = found.get("value", 0) if found else 0
    policy = (found.get("preemptionPolicy") if found else None) or "PreemptLowerPriority"
    given = spec.get("priority")
    if given is not None and given != value:
        why = (
            f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} "
            "from the given PriorityClass name"
        )
        raise statuses.forbidden(call.kind, call.name, why)
    if found and not name:
        spec["priorityClassName"] = found["metadata"]["name"]
    spec["priority"] = value
    if spec.setdefault("preemptionPolicy", policy) != policy:
        why = (
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; priority admission "
            f"controller computed {policy} from the given PriorityClass name"
        )
        raise statuses.forbidden(call.kind, call.name, why)


def check_one_default(core: Core, call: Call, new: Mapping[str, Any]) -> None:
    """Raises StatusError 403 for a second class that is to be the default of all."""
    present = _default(core)
    if new.get("globalDefault") and present is not None and present["metadata"]["name"] != new["metadata"].get("name"):
        why = f"PriorityClass {present['metadata']['name']} is already marked as default. Only one default can exist"
        raise statuses.forbidden(call.kind, call.name, why)


def _default(core: Core) -> dict[str, Any] | None:
    """The class marked as the default of all; the lowest when several are."""
    kind = core.registry.get("scheduling.k8s.io", "v1", "priorityclasses")
    if kind is None:
        return None
    marked = [item.obj for item in core.cacher(kind).items() if item.obj.get("globalDefault")]
    return min(marked, key=lambda obj: obj.get("value", 0)) if marked else None
