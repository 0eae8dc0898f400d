"""The last word on a namespace: its controller empties spec.finalizers, and with none left the namespace goes."""

from __future__ import annotations

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.verbs.change import change


async def finalize(core: Core, call: Call, namespace: Object) -> Item:
    """Take over spec.finalizers, and only those. Raises StatusError 404, 409."""
    wanted = (namespace.get("spec") or {}).get("finalizers") or []

    async def finalized(item: Item) -> Object:
        new: Object = orjson.loads(item.body)
        given = (namespace.get("metadata") or {}).get("resourceVersion")
        if given:
            new["metadata"]["resourceVersion"] = given
        spec = new.setdefault("spec", {})
        if wanted:
            spec["finalizers"] = list(wanted)
        else:
            spec.pop("finalizers", None)
        return new

    return await change(core, call, finalized, admit=False)
