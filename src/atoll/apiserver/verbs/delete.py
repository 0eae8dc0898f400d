"""DELETE of an object or a collection: preconditions, grace, finalizers and propagation.

An object goes at once unless something holds it: a finalizer, a propagation policy (which is written as a finalizer for the garbage
collector), a namespace's own finalizers, or a pod's grace. A held object gets its deletionTimestamp and goes with the change that lets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.kinds import rules_for
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.versions import shown
from atoll.apiserver.verbs.change import TRIES_MAX, is_released, remove
from atoll.apiserver.verbs.create import stored
from atoll.apiserver.verbs.read import ListOptions, list_page
from atoll.errors import StatusError
from atoll.store import CompareFailed
from atoll.units import timestamp_seconds

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
POD_GRACE_S = 30  # terminationGracePeriodSeconds when a pod says nothing


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_seconds: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> DeleteOptions:
        """From a DeleteOptions object. Raises StatusError 400, 422."""
        grace = body.get("gracePeriodSeconds")
        if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
            raise statuses.bad_request(f"gracePeriodSeconds must be a whole number, not {grace!r}")
        propagation = body.get("propagationPolicy") or ""
        orphan = body.get("orphanDependents")
        if propagation and orphan is not None:
            raise statuses.bad_request("orphanDependents and deletionPropagation cannot be both set")
        if propagation not in ("", "Background", "Foreground", "Orphan"):
            raise statuses.bad_request(
                f'DeleteOptions is invalid: propagationPolicy: Unsupported value: "{propagation}": '
                'supported values: "Foreground", "Background", "Orphan", "nil"'
            )
        preconditions = body.get("preconditions") or {}
        if not isinstance(preconditions, Mapping):
            raise statuses.bad_request("preconditions must be an object")
        return cls(
            None if grace is None else max(grace, 0) if grace >= 0 else 1,
            propagation or ("Orphan" if orphan else "Background" if orphan is False else ""),
            str(preconditions.get("uid") or ""),
            str(preconditions.get("resourceVersion") or ""),
        )


async def delete(core: Core, call: Call, options: DeleteOptions) -> tuple[Item, bool]:
    """The object's last or new state, and whether it is gone. Raises StatusError 403, 404, 409."""
    cacher = core.cacher(call.kind)
    for _ in range(TRIES_MAX):
        item = await cacher.sought(call.key)
        if item is None:
            raise statuses.not_found(call.kind, call.name or "")
        try:
            _check(call, item, options)
            await core.admission.validate(call, None, item.obj)
        except StatusError:
            if await cacher.is_current(item):
                raise
            continue
        [own] = (item,) if call.kind.converter is None else await shown(call.kind, (item,))
        marked = _mark(core, call.kind, own, options)
        try:
            if is_released(marked):
                return await remove(core, call, item), True
            if marked == own.obj:
                if await cacher.is_current(item):
                    return item, False
                continue
            body = cacher.encode(marked)
            if call.dry_run:
                return Item(item.key, marked, orjson.dumps(marked), item.revision), False
            revision = await core.store.write(cacher.prefix + item.key, body, expected=item.revision, payload=marked)
        except CompareFailed as lost:
            await core.caches.reach(lost.seen)
            continue
        return stored(core, call, revision, Item(item.key, marked, body, revision)), False
    raise statuses.modified(call.kind, call.name or "")


async def delete_collection(core: Core, call: Call, selection: ListOptions, options: DeleteOptions) -> list[Item]:
    """Delete all that are selected; those that go meanwhile by another hand are passed over."""
    page = await list_page(core, call, selection)
    deleted = []
    for item in page.items:
        metadata = item.obj["metadata"]
        each = Call(call.user, "deletecollection", call.kind, metadata.get("namespace"), metadata["name"], dry_run=call.dry_run)
        try:
            deleted.append((await delete(core, each, options))[0])
        except StatusError as error:
            if error.code != 404:
                raise
    return deleted


def _check(call: Call, item: Item, options: DeleteOptions) -> None:
    metadata = item.obj["metadata"]
    name = call.name or ""
    if options.uid and options.uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {metadata['uid']}"
        raise statuses.conflict(call.kind, name, why)
    if options.resource_version and options.resource_version != str(item.revision):
        wanted = options.resource_version
        why = f"Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {item.revision}"
        raise statuses.conflict(call.kind, name, why)


def _mark(core: Core, kind: Kind, item: Item, options: DeleteOptions) -> Object:
    """A copy of the object as a delete with these options leaves it."""
    obj: Object = orjson.loads(item.body)
    metadata = obj["metadata"]
    finalizers = [name for name in metadata.get("finalizers") or () if not options.propagation or name not in (FOREGROUND, ORPHAN)]
    if options.propagation == "Foreground":
        finalizers.append(FOREGROUND)
    elif options.propagation == "Orphan":
        finalizers.append(ORPHAN)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    grace = _grace(kind, obj, options.grace_seconds)
    if metadata.get("deletionTimestamp"):
        # A second delete may shorten the wait, never lengthen it.
        if grace < metadata.get("deletionGracePeriodSeconds", 0):
            began = metadata.get("deletionGracePeriodSeconds", 0)
            metadata["deletionGracePeriodSeconds"] = grace
            metadata["deletionTimestamp"] = _shifted(metadata["deletionTimestamp"], grace - began)
        return obj
    metadata["deletionTimestamp"] = timestamp_seconds(core.clock() + grace)
    metadata["deletionGracePeriodSeconds"] = grace
    rules_for(kind).prepare_for_delete(obj, metadata["deletionTimestamp"])
    if "generation" in metadata:
        metadata["generation"] += 1
    if kind.kind == "Namespace" and not kind.group:
        obj.setdefault("status", {})["phase"] = "Terminating"
    return obj


def _grace(kind: Kind, obj: Object, asked: int | None) -> int:
    """Seconds a pod has to end. A pod no kubelet looks after, or that has ended, has nothing to wait for."""
    if kind.kind != "Pod" or kind.group:
        return 0
    spec = obj.get("spec") or {}
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", POD_GRACE_S)) if asked is None else asked


def _shifted(stamp: str, seconds: int) -> str:
    import calendar
    import time

    return timestamp_seconds(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) + seconds)
