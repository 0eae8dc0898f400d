"""RuntimeClass: a pod that names one gets its overhead, and runs where the class can."""

from __future__ import annotations

from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.units import parse_quantity


def apply_runtime_class(core: Core, call: Call, new: Object) -> None:
    """Raises StatusError 403 for a class that is not there, or what contradicts it."""
    spec = new.setdefault("spec", {})
    name = spec.get("runtimeClassName")
    given = spec.get("overhead")
    found = core.find("node.k8s.io", "v1", "runtimeclasses", name) if name else None
    if name and found is None:
        raise _rejected(call, f'RuntimeClass "{name}" not found')
    overhead = ((found.obj.get("overhead") or {}).get("podFixed") if found else None) or None
    if overhead is None:
        if given:
            raise _rejected(call, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
    elif given and _amounts(given) != _amounts(overhead):
        raise _rejected(call, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    else:
        spec["overhead"] = dict(overhead)
    if found is not None:
        _schedule(call, spec, found.obj.get("scheduling") or {})


def _schedule(call: Call, spec: Object, scheduling: dict[str, Any]) -> None:
    wanted = scheduling.get("nodeSelector") or {}
    selector = spec.get("nodeSelector") or {}
    for key, value in wanted.items():
        if selector.get(key, value) != value:
            told = f"runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {selector[key]}"
            raise _rejected(call, f"conflict: {told}")
    if wanted:
        spec["nodeSelector"] = {**selector, **wanted}
    tolerations = spec.setdefault("tolerations", [])
    tolerations += [dict(each) for each in scheduling.get("tolerations") or () if each not in tolerations]


def _amounts(overhead: dict[str, Any]) -> dict[str, Any]:
    return {name: parse_quantity(amount) for name, amount in overhead.items()}


def _rejected(call: Call, why: str) -> Exception:
    return statuses.forbidden(call.kind, call.name, f"pod rejected: {why}")
