"""The read-change-compare-write loop under update, patch, scale, eviction and finalize.

The loop starts from the stored object each time: when another write came between, the change is computed again on what that write left,
unless the caller named the resourceVersion it had seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.apply import follow_update
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.versions import shown
from atoll.apiserver.verbs.create import stored
from atoll.apiserver.verbs.prepare import admit_change
from atoll.errors import StatusError
from atoll.store import CompareFailed
from atoll.units import timestamp_seconds

TRIES_MAX = 64  # each lost race means another writer won; this many in a row is not contention but a fault

UNKNOWN_MANAGER = "unknown"  # who changes fields without a name of their own
Change = Callable[[Item], Awaitable[Object]]


async def change(core: Core, call: Call, compute: Change, *, admit: bool = True, follow: bool = True) -> Item:
    """Replace the object `call` names by `compute(item)`, a fresh dict; the item's own is shared and must not be touched.

    `follow` says to move the ownership of what it changes to the call's field manager, for objects that have been applied. An object equal
    to the stored one is not written: its resourceVersion stays. One whose deletion was waiting for this change (no
    finalizer left) is removed. Raises StatusError 404, 409 (also whatever `compute` raises), 422.
    """
    cacher = core.cacher(call.kind)
    for _ in range(TRIES_MAX):
        item = await cacher.sought(call.key)
        if item is None:
            raise statuses.not_found(call.kind, call.name or "")
        try:
            [seen] = (item,) if call.kind.converter is None else await shown(call.face, (item,))
            new = await compute(seen)
            check_revision(call, new["metadata"], item)
            if admit:
                await admit_change(core, call, new, seen.obj)
        except StatusError:
            if await cacher.is_current(item):
                raise
            continue
        if follow and item.obj["metadata"].get("managedFields"):
            manager = call.field_manager or UNKNOWN_MANAGER
            follow_update(call.kind, item.obj, new, manager, call.subresource, timestamp_seconds(core.clock()))
        new["metadata"]["resourceVersion"] = str(item.revision)
        async with core.addresses.reserve(call.kind, new, item.obj, dry_run=call.dry_run) as hold:
            try:
                if is_released(new):
                    return await remove(core, call, item, new)
                if new == item.obj:
                    if await cacher.is_current(item):
                        return item
                    continue
                body = cacher.encode(new)
                if call.dry_run:
                    return Item(item.key, new, orjson.dumps(new), item.revision)
                revision = await core.store.write(cacher.prefix + call.key, body, expected=item.revision, payload=new)
                hold.keep()
            except CompareFailed as lost:
                await core.caches.reach(lost.seen)
                continue
        return stored(core, call, revision, Item(item.key, new, body, revision))
    raise statuses.modified(call.kind, call.name or "")


def check_revision(call: Call, metadata: dict[str, Any], item: Item) -> None:
    """Raises 409 when the caller's object is of another revision, or of another object that had this name."""
    revision = metadata.get("resourceVersion")
    if revision and revision != str(item.revision):
        if not str(revision).isdecimal():
            raise statuses.bad_request(f'invalid resource version "{revision}": must be a number')
        raise statuses.modified(call.kind, call.name or "")
    uid = metadata.get("uid")
    if uid and uid != item.obj["metadata"]["uid"]:
        raise statuses.conflict(
            call.kind,
            call.name or "",
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {item.obj['metadata']['uid']}",
        )


def is_released(obj: Object) -> bool:
    """Deletion was asked for and nothing holds the object any more."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds"):
        return False
    return not (obj["kind"] == "Namespace" and (obj.get("spec") or {}).get("finalizers"))


async def remove(core: Core, call: Call, item: Item, last: Object | None = None) -> Item:
    """Take the object out of the store; the answer is its last state. Raises CompareFailed."""
    cacher = core.cacher(call.kind)
    if call.dry_run:
        return item
    claims = await core.addresses.found(call.kind, item.obj)
    revision = await core.store.write(cacher.prefix + item.key, None, expected=item.revision)
    if claims:
        await core.addresses.release(claims)
    if last is None:
        return cacher.as_of(item, revision)
    last["metadata"]["resourceVersion"] = str(revision)
    return Item(item.key, last, orjson.dumps(last), revision)
