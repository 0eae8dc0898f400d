"""Evicting a pod: a delete that disruption budgets may refuse for now (429)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Cause
from atoll.apiserver.machinery.selectors import Selector, label_selector_of
from atoll.apiserver.verbs.change import change
from atoll.apiserver.verbs.delete import DeleteOptions, delete
from atoll.units import timestamp_seconds


async def evict(core: Core, call: Call, eviction: Object) -> Object:
    options = DeleteOptions.parse(eviction.get("deleteOptions") or {})
    item = core.cacher(call.kind).get(call.key)
    if item is None:
        raise statuses.not_found(call.kind, call.name or "")
    if _counts(item.obj):
        await _spend(core, call, item)
    if not call.dry_run:
        revision = (await _tell(core, call, options)).revision
        if options.resource_version:  # the change between was our own
            options = replace(options, resource_version=str(revision))
    through = Call(call.user, "delete", call.kind, call.namespace, call.name, dry_run=call.dry_run)
    await delete(core, through, options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def _tell(core: Core, call: Call, options: DeleteOptions) -> Item:
    """Note on the pod why it goes: failure policies of jobs ask for it. Raises StatusError 409 where it is not the pod that is meant."""
    now = timestamp_seconds(core.clock())
    told = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}

    async def with_condition(item: Item) -> Object:
        pod: Object = orjson.loads(item.body)
        meant = {"uid": options.uid, "resourceVersion": options.resource_version}
        pod["metadata"] |= {field: value for field, value in meant.items() if value}
        status = pod.setdefault("status", {})
        others = [each for each in status.get("conditions") or () if each["type"] != told["type"]]
        status["conditions"] = [*others, {**told, "lastTransitionTime": now}]
        return pod

    return await change(core, Call(call.user, "update", call.kind, call.namespace, call.name, "status"), with_condition)


def _counts(pod: Mapping[str, Any]) -> bool:
    """Whether losing this pod is a disruption."""
    status = pod.get("status") or {}
    return not pod["metadata"].get("deletionTimestamp") and status.get("phase") not in ("Pending", "Succeeded", "Failed")


async def _spend(core: Core, call: Call, pod: Item) -> None:
    """Take one disruption from the pod's budget. Raises StatusError 429 when none is left, 500 for more than one budget."""
    kind = core.registry.get("policy", "v1", "poddisruptionbudgets")
    if kind is None:
        return
    budgets = [b for b in core.cacher(kind).in_order(call.namespace) if _covers(b.obj, pod.obj)]
    if len(budgets) > 1:
        raise statuses.internal("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
    if not budgets:
        return
    name = budgets[0].obj["metadata"]["name"]

    async def spent(item: Item) -> Object:
        budget: Object = orjson.loads(item.body)
        status = budget.setdefault("status", {})
        if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
            raise _refused(name, "The disruption budget {} is still being processed by the server.", 10)
        allowed = status.get("disruptionsAllowed", 0)
        if allowed <= 0:
            text = "The disruption budget {} needs %d healthy pods and has %d currently"
            raise _refused(name, text % (status.get("desiredHealthy", 0), status.get("currentHealthy", 0)), 0)
        status["disruptionsAllowed"] = allowed - 1
        status.setdefault("disruptedPods", {})[call.name or ""] = timestamp_seconds(core.clock())
        return budget

    through = Call(call.user, "update", kind, call.namespace, name, "status", call.dry_run)
    await change(core, through, spent)


def _covers(budget: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    selector = (budget.get("spec") or {}).get("selector")
    return selector is not None and Selector(label_selector_of(selector)).matches(pod)


def _refused(name: str, why: str, retry_after: int) -> Exception:
    return statuses.too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        retry_after,
        [Cause("DisruptionBudget", why.format(name), "")],
    )
