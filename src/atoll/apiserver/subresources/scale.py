"""The scale of a workload, as an object of its own: autoscaling/v1 Scale over spec.replicas, or over the fields a custom resource names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.customresources.schema import CustomSchema, ScalePaths
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Cause, Kind
from atoll.apiserver.machinery.versions import from_stored, shown
from atoll.apiserver.verbs.change import change, check_revision


def scale_of(kind: Kind, obj: Mapping[str, Any]) -> Object:
    metadata = obj["metadata"]
    shown = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if name in metadata}
    paths = _paths(kind)
    if paths is None:
        selector = _selector_text((obj.get("spec") or {}).get("selector") or {})
        wanted, current = (_number(_at(obj, (part, "replicas"))) for part in ("spec", "status"))
    else:
        told = _at(obj, paths.selector)
        selector = told if isinstance(told, str) else ""
        wanted, current = _number(_at(obj, paths.replicas)), _number(_at(obj, paths.current))
    status = {"replicas": current, **({"selector": selector} if selector or paths is None else {})}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown, "spec": {"replicas": wanted}, "status": status}


async def set_scale(core: Core, call: Call, compute: Callable[[Object], Object]) -> Object:
    """Give the workload the replicas of `compute(present scale)`. Raises StatusError 404, 409, 422."""

    async def scaled(item: Item) -> Object:
        wanted = compute(scale_of(call.face, from_stored(call.face, item.obj)))
        check_revision(call, wanted.get("metadata") or {}, item)
        replicas = (wanted.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            cause = Cause("FieldValueInvalid", f"Invalid value: {replicas}: must be greater than or equal to 0", "spec.replicas")
            raise statuses.invalid(call.kind, call.name or "", [cause])
        new: Object = orjson.loads(item.body)
        paths = _paths(call.face)
        _put(new, ("spec", "replicas") if paths is None else paths.replicas, replicas)
        return new

    # By the main door: spec changes, so generation rises.
    through = Call(call.user, "update", call.kind, call.namespace, call.name, dry_run=call.dry_run, field_manager=call.field_manager)
    through.served = call.served
    [after] = await shown(call.face, [await change(core, through, scaled)])
    return scale_of(call.face, from_stored(call.face, after.obj))


def _paths(kind: Kind) -> ScalePaths | None:
    """Where a custom resource keeps its scale; None for a built-in kind."""
    return kind.schema.scale if isinstance(kind.schema, CustomSchema) else None


def _at(obj: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj if path else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _put(obj: Object, path: tuple[str, ...], value: int) -> None:
    for step in path[:-1]:
        if not isinstance(obj.get(step), dict):
            obj[step] = {}
        obj = obj[step]
    obj[path[-1]] = value


def _selector_text(selector: dict[str, Any]) -> str:
    """A label selector as a query string; a ReplicationController's is a plain map."""
    plain = selector.get("matchLabels") if "matchLabels" in selector or "matchExpressions" in selector else selector
    parts = [f"{key}={value}" for key, value in sorted((plain or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, operator = expression["key"], expression["operator"]
        values = ",".join(sorted(expression.get("values") or ()))
        parts.append({"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(operator, f"!{key}"))
    return ",".join(parts)
