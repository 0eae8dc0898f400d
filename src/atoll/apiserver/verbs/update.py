"""PUT of a whole object, or of its status."""

from __future__ import annotations

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.verbs.change import change
from atoll.apiserver.verbs.create import check_namespace


async def update(core: Core, call: Call, obj: Object) -> Item:
    """Replace the stored object by `obj`, which has passed the schema. Conditional when it carries a resourceVersion."""
    metadata = obj.setdefault("metadata", {})
    name = metadata.setdefault("name", call.name)
    if name != call.name:
        raise statuses.bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")
    check_namespace(call, metadata)
    body = orjson.dumps(obj)
    first = True

    async def replacement(item: Item) -> Object:
        nonlocal first
        new: Object = obj if first else orjson.loads(body)  # a second try starts from what came in, not from what the first made of it
        first = False
        if "managedFields" not in new["metadata"] and "managedFields" in item.obj["metadata"]:
            new["metadata"]["managedFields"] = item.obj["metadata"]["managedFields"]
        return new

    return await change(core, call, replacement)
