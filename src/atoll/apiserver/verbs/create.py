"""POST to a collection."""

from __future__ import annotations

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.generate import generate_name
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.verbs.prepare import admit_new
from atoll.store import CompareFailed
from atoll.units import timestamp_seconds

GENERATE_TRIES = 8


async def create(core: Core, call: Call, obj: Object) -> Item:
    """Store `obj`, which is the call's own copy and has passed the schema. Raises StatusError 400, 403, 409, 422."""
    metadata = obj.setdefault("metadata", {})
    _claim(core, call, metadata)
    generated = not metadata.get("name") and bool(metadata.get("generateName"))
    for attempt in range(GENERATE_TRIES if generated else 1):
        if generated:
            metadata["name"] = generate_name(metadata["generateName"])
        call.name = metadata.get("name")
        try:
            # A webhook turns the object into another version on the way: a second try begins with the first one.
            fresh = orjson.loads(orjson.dumps(obj)) if generated and call.kind.converter is not None else obj
            return await _store(core, call, fresh)
        except CompareFailed:
            if attempt + 1 == GENERATE_TRIES or not generated:
                raise statuses.already_exists(call.kind, call.name or "") from None
    raise statuses.already_exists(call.kind, call.name or "")


def _claim(core: Core, call: Call, metadata: Object) -> None:
    """Set what the server owns in a new object's metadata."""
    if metadata.get("resourceVersion"):
        raise statuses.bad_request("resourceVersion should not be set on objects to be created")
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"):
        metadata.pop(name, None)
    if call.verb != "patch":  # an apply that creates brings them along, made by the server
        metadata.pop("managedFields", None)
    check_namespace(call, metadata)
    metadata["uid"] = core.new_uid()
    metadata["creationTimestamp"] = timestamp_seconds(core.clock())


def check_namespace(call: Call, metadata: Object) -> None:
    """The object's namespace is the URL's. Raises 400."""
    if not call.kind.namespaced:
        metadata.pop("namespace", None)
        return
    if call.namespace is None:
        raise statuses.bad_request("an empty namespace may not be set during creation")
    given = metadata.setdefault("namespace", call.namespace) or call.namespace
    metadata["namespace"] = given
    if given != call.namespace:
        raise statuses.bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request: {given} != {call.namespace}"
        )


async def _store(core: Core, call: Call, obj: Object) -> Item:
    cacher = core.cacher(call.kind)
    await admit_new(core, call, obj)
    if cacher.get(call.key) is not None:  # asked before addresses are: the object's own would be found taken
        raise CompareFailed(call.key, 0, 0)
    async with core.addresses.reserve(call.kind, obj, None, dry_run=call.dry_run) as hold:
        body = cacher.encode(obj)
        if call.dry_run:
            return Item(call.key, obj, body, 0)
        revision = await core.store.write(cacher.prefix + call.key, body, expected=0, payload=obj)
        hold.keep()
    return stored(core, call, revision, Item(call.key, obj, body, revision))


def stored(core: Core, call: Call, revision: int, fallback: Item) -> Item:
    """The item as the cacher has it after a write; `fallback` when it was replaced or deleted in the same group commit."""
    item = core.cacher(call.kind).get(call.key)
    return item if item is not None and item.revision == revision else fallback
