"""Kinds served under several versions and stored under one: the other form is made when it is read, and undone when it is written.

Two of the built-in kinds are such: events (core and events.k8s.io) and horizontal pod autoscalers (v1 and v2). Versions of a custom
resource differ in their schema alone (conversion strategy None): each shows what its schema knows. Where a webhook converts them, it is
asked before (`shown`, `converted`), and nothing is left to do here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Kind

_EVENT_FIELDS = {  # core/v1 → events.k8s.io/v1
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_EVENT_FIELDS_BACK = {new: old for old, new in _EVENT_FIELDS.items()}


def served_object(kind: Kind, item: Item) -> Object:
    """The item as this kind's version shows it; shared, not to be changed."""
    return item.obj if not kind.storage_group_version or kind.converter is not None else from_stored(kind, item.obj)


def served_body(kind: Kind, item: Item) -> bytes:
    return item.body if not kind.storage_group_version or kind.converter is not None else orjson.dumps(from_stored(kind, item.obj))


async def shown(kind: Kind, items: Sequence[Item]) -> list[Item]:
    """The items in the version this kind is served in, where a webhook must be asked for that. Raises StatusError 500."""
    others = [item for item in items if item.obj["apiVersion"] != kind.api_version] if kind.converter is not None else []
    if not others:
        return list(items)
    made = iter(await converted(kind, [item.obj for item in others]))
    return [_with(item, next(made)) if item.obj["apiVersion"] != kind.api_version else item for item in items]


def _with(item: Item, obj: Object) -> Item:
    return Item(item.key, obj, orjson.dumps(obj), item.revision)


async def converted(kind: Kind, objects: Sequence[Object]) -> list[Object]:
    """Objects of other versions in this one, as the webhook has them and this version's schema knows them. Raises StatusError 500."""
    assert kind.converter is not None
    return [kind.schema.restored(obj) for obj in await kind.converter.convert(objects, kind.api_version)]


def from_stored(kind: Kind, obj: Object) -> Object:
    """The stored object in the version this kind is served in; the same object when that is the one stored."""
    if not kind.storage_group_version or kind.converter is not None:
        return obj
    if not kind.builtin:
        return {**kind.schema.validate(obj).object, "apiVersion": kind.api_version}
    return {**_CONVERTERS[kind.group, kind.version, kind.kind][0](obj), "apiVersion": kind.api_version}


def to_stored(kind: Kind, obj: Object) -> Object:
    """The other way. A custom resource keeps what only its own version knows until it has been judged by that version."""
    if not kind.storage_group_version or kind.converter is not None:
        return obj
    if not kind.builtin:
        return {**obj, "apiVersion": kind.storage_group_version}
    return {**_CONVERTERS[kind.group, kind.version, kind.kind][1](obj), "apiVersion": kind.storage_group_version}


def _renamed(names: dict[str, str]) -> Callable[[Object], Object]:
    return lambda obj: {names.get(field, field): value for field, value in obj.items()}


_CPU = "targetCPUUtilizationPercentage"
_METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR_ANNOTATION = "autoscaling.alpha.kubernetes.io/behavior"


def _is_cpu(metric: Any) -> bool:
    resource = metric.get("resource") or {}
    return (
        metric.get("type") == "Resource" and resource.get("name") == "cpu" and (resource.get("target") or {}).get("type") == "Utilization"
    )


def _autoscaler_v1(obj: Object) -> Object:
    """v1 has one metric, the CPU's; the others and the behaviour travel as annotations, as upstream."""
    spec = dict(obj.get("spec") or {})
    metrics = spec.pop("metrics", None) or []
    behavior = spec.pop("behavior", None)
    cpu = next((metric for metric in metrics if _is_cpu(metric)), None)
    annotations = dict(obj["metadata"].get("annotations") or {})
    if cpu is not None:
        spec[_CPU] = cpu["resource"]["target"].get("averageUtilization")
    others = [metric for metric in metrics if metric is not cpu]
    if others:
        annotations[_METRICS_ANNOTATION] = orjson.dumps(others).decode()
    if behavior is not None:
        annotations[_BEHAVIOR_ANNOTATION] = orjson.dumps(behavior).decode()
    status = dict(obj.get("status") or {})
    current = next((m for m in status.pop("currentMetrics", None) or [] if (m.get("resource") or {}).get("name") == "cpu"), None)
    status.pop("conditions", None)
    if current is not None:
        status["currentCPUUtilizationPercentage"] = current["resource"].get("current", {}).get("averageUtilization")
    metadata = {**obj["metadata"], **({"annotations": annotations} if annotations else {})}
    return {**obj, "metadata": metadata, "spec": spec, "status": status}


def _autoscaler_v2(obj: Object) -> Object:
    spec = dict(obj.get("spec") or {})
    metrics = []
    percentage = spec.pop(_CPU, None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    metrics += _annotated(annotations.pop(_METRICS_ANNOTATION, None), list)
    behavior = _annotated(annotations.pop(_BEHAVIOR_ANNOTATION, None), dict)
    if metrics:
        spec["metrics"] = metrics
    if behavior:
        spec["behavior"] = behavior
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    status = dict(obj.get("status") or {})
    current = status.pop("currentCPUUtilizationPercentage", None)
    if current is not None:
        status["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": current}}}]
    return {**obj, "metadata": metadata, "spec": spec, **({"status": status} if status else {})}


def _annotated(text: Any, shape: type) -> Any:
    """What an annotation holds, when it is of the shape upstream writes; otherwise nothing, as upstream."""
    try:
        value = orjson.loads(text) if text else shape()
    except orjson.JSONDecodeError:
        return shape()
    return value if isinstance(value, shape) else shape()


_CONVERTERS: dict[tuple[str, str, str], tuple[Callable[[Object], Object], Callable[[Object], Object]]] = {
    ("events.k8s.io", "v1", "Event"): (_renamed(_EVENT_FIELDS), _renamed(_EVENT_FIELDS_BACK)),
    ("autoscaling", "v1", "HorizontalPodAutoscaler"): (_autoscaler_v1, _autoscaler_v2),
}
