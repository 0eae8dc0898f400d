"""LimitRanger: containers that say nothing get the namespace's defaults; what asks for too little or too much is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.client import quota
from atoll.units import parse_quantity

ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, str]


def set_default_limits(core: Core, call: Call, new: Object) -> None:
    """For a new pod."""
    spec = new.setdefault("spec", {})
    told: list[str] = []
    for limit in _limits(core, call, "Container"):
        for field in ("containers", "initContainers"):
            for container in spec.get(field) or ():
                what = "container" if field == "containers" else "init container"
                told += _default(container, limit, f"{what} {container.get('name')}")
    if told:
        new["metadata"].setdefault("annotations", {})[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(told)


def check_limits(core: Core, call: Call, new: Mapping[str, Any]) -> None:
    """For a pod or a volume claim. Raises StatusError 403 with everything that is out of range."""
    if call.kind.plural == "pods":
        problems = list(_of_pod(core, call, new))
    else:
        amounts = ((new.get("spec") or {}).get("resources") or {}).get("requests") or {}
        problems = [each for limit in _limits(core, call, "PersistentVolumeClaim") for each in _of_claim(limit, amounts)]
    if problems:
        raise statuses.forbidden(call.kind, call.name, problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")


def _limits(core: Core, call: Call, kind: str) -> Iterator[Mapping[str, Any]]:
    ranges = core.registry.get("", "v1", "limitranges")
    if ranges is None:
        return
    for item in core.cacher(ranges).in_order(call.namespace):
        for limit in (item.obj.get("spec") or {}).get("limits") or ():
            if limit.get("type") == kind:
                yield limit


def _default(container: Object, limit: Mapping[str, Any], what: str) -> Iterator[str]:
    for field, source in (("requests", "defaultRequest"), ("limits", "default")):
        given = (container.get("resources") or {}).get(field) or {}
        missing = {name: amount for name, amount in (limit.get(source) or {}).items() if name not in given}
        if missing:
            container.setdefault("resources", {}).setdefault(field, {}).update(missing)
            yield f"{', '.join(sorted(missing))} {field.removesuffix('s')} for {what}"


def _of_pod(core: Core, call: Call, pod: Mapping[str, Any]) -> Iterator[str]:
    spec = pod.get("spec") or {}
    for limit in _limits(core, call, "Container"):
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            resources = container.get("resources") or {}
            yield from _of_amounts(limit, resources.get("requests") or {}, resources.get("limits") or {})
    for limit in _limits(core, call, "Pod"):
        requests, limits = (
            {name: quota.written(name, amount) for name, amount in quota.pod_amounts(pod, which).items()}
            for which in ("requests", "limits")
        )
        yield from _of_amounts(limit, requests, limits)


def _of_amounts(limit: Mapping[str, Any], requests: Amounts, limits: Amounts) -> Iterator[str]:
    kind = limit["type"]
    for name, low in (limit.get("min") or {}).items():
        yield from _too_low(f"minimum {name} usage per {kind} is {low}", parse_quantity(low), requests.get(name), limits.get(name))
    for name, high in (limit.get("max") or {}).items():
        yield from _too_high(f"maximum {name} usage per {kind} is {high}", parse_quantity(high), requests.get(name), limits.get(name))
    for name, ratio in (limit.get("maxLimitRequestRatio") or {}).items():
        yield from _too_wide(f"{name} max limit to request ratio per {kind} is {ratio}", ratio, requests.get(name), limits.get(name))


def _too_low(rule: str, low: Decimal, request: str | None, limit: str | None) -> Iterator[str]:
    if request is None:
        yield f"{rule}.  No request is specified"
    elif parse_quantity(request) < low:
        yield f"{rule}, but request is {request}"
    elif limit is not None and parse_quantity(limit) < low:
        yield f"{rule}, but limit is {limit}"


def _too_high(rule: str, high: Decimal, request: str | None, limit: str | None) -> Iterator[str]:
    if limit is None:
        yield f"{rule}.  No limit is specified"
    elif parse_quantity(limit) > high:
        yield f"{rule}, but limit is {limit}"
    elif request is not None and parse_quantity(request) > high:
        yield f"{rule}, but request is {request}"


def _too_wide(rule: str, ratio: str, request: str | None, limit: str | None) -> Iterator[str]:
    if request is None or not parse_quantity(request):
        yield f"{rule}, but no request is specified or request is 0"
    elif limit is None or not parse_quantity(limit):
        yield f"{rule}, but no limit is specified or limit is 0"
    else:
        observed = parse_quantity(limit) / parse_quantity(request)
        if observed > parse_quantity(ratio):
            yield f"{rule}, but provided ratio is {observed:f}"


def _of_claim(limit: Mapping[str, Any], amounts: Amounts) -> Iterator[str]:
    for name, low in (limit.get("min") or {}).items():
        rule = f"minimum {name} usage per PersistentVolumeClaim is {low}"
        yield from _too_low(rule, parse_quantity(low), amounts.get(name), None)
    for name, high in (limit.get("max") or {}).items():
        asked = amounts.get(name)
        rule = f"maximum {name} usage per PersistentVolumeClaim is {high}"
        if asked is None:
            yield f"{rule}.  No request is specified"
        elif parse_quantity(asked) > parse_quantity(high):
            yield f"{rule}, but request is {asked}"
