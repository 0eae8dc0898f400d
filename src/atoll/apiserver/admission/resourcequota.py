"""ResourceQuota: what a namespace's quotas allow is charged when an object comes, so that two that come at once cannot both have the rest.

The charge is a compare-and-swap on the quota's status. It is not given back when the object is refused after all: the quota controller,
which looks again after every charge, finds what is really there.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from atoll.apiserver.call import Call, User
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.quantities import canonical
from atoll.apiserver.verbs.change import change
from atoll.client import quota

_CHARGER = User("system:apiserver", ("system:masters",))
_CHANGING = {"services", "persistentvolumeclaims", "pods"}  # whose later changes may count for more


async def charge_quotas(core: Core, call: Call, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Raises StatusError 403 when a quota would be exceeded, or asks for what a container does not say."""
    if not call.namespace or call.subresource not in ("", "resize"):
        return
    if old is not None and (call.kind.group or call.kind.plural not in _CHANGING):
        return
    kind = core.registry.get("", "v1", "resourcequotas")
    if kind is None:
        return
    present = [item for item in core.cacher(kind).in_order(call.namespace) if _counts(call, item.obj, new)]
    if not present or (old is None and core.cacher(call.kind).get(call.key) is not None):
        return  # one that exists is refused as such
    charges = [(item, _asked(core, call, item.obj, new, old)) for item in present]
    for item, asked in charges:
        _check(core, call, item, asked)
    if call.dry_run:
        return
    for item, asked in charges:
        if asked:
            await _charge(core, call, kind, item, asked)


def _counts(call: Call, found: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    hard = (found.get("spec") or {}).get("hard") or {}
    where = (call.kind.group, call.kind.plural)
    return where in quota.resources_counted(hard) and quota.in_scopes(found, *where, new)


def _asked(core: Core, call: Call, found: Mapping[str, Any], new: Mapping[str, Any], old: Mapping[str, Any] | None) -> quota.Usage:
    """What the quota would have to give beyond what it has given."""
    hard = found["spec"]["hard"]
    if old is None and call.kind.plural == "pods" and not call.kind.group:
        missing = quota.unsaid(new, hard)
        if missing:
            told = "; ".join(f"{name} for: {','.join(containers)}" for name, containers in missing.items())
            raise statuses.forbidden(call.kind, call.name, f"failed quota: {found['metadata']['name']}: must specify {told}")
    now = core.clock()
    asked = quota.usage_of(call.kind.group, call.kind.plural, new, now)
    had = quota.usage_of(call.kind.group, call.kind.plural, old, now) if old is not None else {}
    return {name: more for name in asked if name in hard and (more := asked[name] - had.get(name, Decimal())) > 0}


def _check(core: Core, call: Call, item: Item, asked: quota.Usage) -> None:
    hard, used = quota.parse(item.obj["spec"]["hard"]), _used(core, item)
    exceeded = [name for name, more in sorted(asked.items()) if used.get(name, Decimal()) + more > hard[name]]
    if not exceeded:
        return
    told = ", ".join(
        f"{word}: {','.join(f'{name}={canonical(quota.written(name, amounts.get(name, Decimal())))}' for name in exceeded)}"
        for word, amounts in (("requested", asked), ("used", used), ("limited", hard))
    )
    raise statuses.forbidden(call.kind, call.name, f"exceeded quota: {item.obj['metadata']['name']}, {told}")


def _used(core: Core, item: Item) -> quota.Usage:
    """As the status says; reckoned from the objects themselves where it does not say yet."""
    hard = item.obj["spec"]["hard"]
    told = quota.parse((item.obj.get("status") or {}).get("used"))
    if all(name in told for name in hard):
        return told
    namespace, now = item.obj["metadata"]["namespace"], core.clock()
    found = []
    for kind in core.registry:
        where = (kind.group, kind.plural)
        if kind.namespaced and not kind.storage_group_version and where in quota.resources_counted(hard):
            objects = [each.obj for each in core.cacher(kind).in_order(namespace)]
            found += [quota.usage_of(*where, obj, now) for obj in objects if quota.in_scopes(item.obj, *where, obj)]
    return {**quota.total(found), **told}


async def _charge(core: Core, call: Call, kind: Kind, item: Item, asked: quota.Usage) -> None:
    async def charged(fresh: Item) -> Object:
        _check(core, call, fresh, asked)
        used = quota.total((_used(core, fresh), asked))
        obj: Object = orjson.loads(fresh.body)
        hard = obj["spec"]["hard"]
        obj["status"] = {"hard": hard, "used": {name: canonical(quota.written(name, used.get(name, Decimal()))) for name in hard}}
        return obj

    name = item.obj["metadata"]["name"]
    await change(core, Call(_CHARGER, "update", kind, call.namespace, name, "status"), charged, admit=False)
