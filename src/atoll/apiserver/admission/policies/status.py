"""The status of validating policies: which generation was looked at, and what type checking found in it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from atoll.apiserver.admission.policies.bindings import GROUP, VALIDATING
from atoll.apiserver.admission.policies.typecheck import warnings
from atoll.apiserver.api import Api
from atoll.apiserver.call import MASTERS, Call, User
from atoll.apiserver.following import follow

_WRITER = User("system:apiserver", (MASTERS,))


async def tell_type_checks(api: Api) -> None:
    """Keep it true; runs until cancelled."""
    kind = api.core.registry.get(GROUP, "v1", VALIDATING)
    assert kind is not None
    cacher = api.core.cacher(kind)

    async def look() -> None:
        for item in list(cacher.items()):
            generation = item.obj["metadata"].get("generation")
            if (item.obj.get("status") or {}).get("observedGeneration") == generation:
                continue
            found = await asyncio.to_thread(warnings, api.core.registry, item.obj)
            status: dict[str, Any] = {"observedGeneration": generation, "typeChecking": {"expressionWarnings": found} if found else {}}
            changed = orjson.loads(item.body)
            changed["status"] = {**(changed.get("status") or {}), **status}
            await api.update(Call(_WRITER, "update", kind, None, item.key, "status"), changed)

    await follow([cacher], look)
