"""The scale of a workload, as an object of its own: autoscaling/v1 Scale over spec.replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Item, Object
from atoll.apiserver.machinery.kind import Cause
from atoll.apiserver.verbs.change import change, check_revision


def scale_of(item: Item) -> Object:
    metadata = item.obj["metadata"]
    spec = item.obj.get("spec") or {}
    status = item.obj.get("status") or {}
    shown = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if name in metadata}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {"replicas": status.get("replicas", 0), "selector": _selector_text(spec.get("selector") or {})},
    }


async def set_scale(core: Core, call: Call, compute: Callable[[Object], Object]) -> Object:
    """Give the workload the replicas of `compute(present scale)`. Raises StatusError 404, 409, 422."""

    async def scaled(item: Item) -> Object:
        wanted = compute(scale_of(item))
        check_revision(call, wanted.get("metadata") or {}, item)
        replicas = (wanted.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            cause = Cause("FieldValueInvalid", f"Invalid value: {replicas}: must be greater than or equal to 0", "spec.replicas")
            raise statuses.invalid(call.kind, call.name or "", [cause])
        new: Object = orjson.loads(item.body)
        new.setdefault("spec", {})["replicas"] = replicas
        return new

    # By the main door: spec changes, so generation rises.
    through = Call(call.user, "update", call.kind, call.namespace, call.name, dry_run=call.dry_run, field_manager=call.field_manager)
    return scale_of(await change(core, through, scaled))


def _selector_text(selector: dict[str, Any]) -> str:
    """A label selector as a query string; a ReplicationController's is a plain map."""
    plain = selector.get("matchLabels") if "matchLabels" in selector or "matchExpressions" in selector else selector
    parts = [f"{key}={value}" for key, value in sorted((plain or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, operator = expression["key"], expression["operator"]
        values = ",".join(sorted(expression.get("values") or ()))
        parts.append({"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(operator, f"!{key}"))
    return ",".join(parts)
