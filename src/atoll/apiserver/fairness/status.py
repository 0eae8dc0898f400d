"""Whether each flow schema leads to a priority level that is there: its condition Dangling."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson

from atoll.apiserver.api import Api
from atoll.apiserver.call import MASTERS, Call, User
from atoll.apiserver.fairness.bootstrap import GROUP, LEVELS, SCHEMAS
from atoll.apiserver.machinery.kind import Kind
from atoll.errors import AtollError
from atoll.units import timestamp_seconds

log = logging.getLogger(__name__)

_WRITER = User("system:apiserver", (MASTERS,))
RECHECK_S = 300.0


async def tell_dangling(api: Api) -> None:
    """Keep the conditions true; runs until cancelled."""
    registry = api.core.registry
    schemas, levels = (registry.get(GROUP, "v1", plural) for plural in (SCHEMAS, LEVELS))
    assert schemas is not None
    assert levels is not None
    cachers = [api.core.cacher(kind) for kind in (schemas, levels)]
    seen: list[int] = []
    while True:
        changes = [cacher.last_change for cacher in cachers]
        if changes == seen:
            waiting = [asyncio.ensure_future(cacher.changed(RECHECK_S)) for cacher in cachers]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiter in waiting:
                    waiter.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            continue
        seen = changes
        for item in list(cachers[0].items()):
            try:
                await _tell(api, schemas, item.obj, {level.key for level in cachers[1].items()})
            except AtollError as error:
                log.warning("status of flow schema %s: %s", item.key, error)


async def _tell(api: Api, kind: Kind, schema: dict[str, Any], levels: set[str]) -> None:
    name = (schema["spec"].get("priorityLevelConfiguration") or {}).get("name") or ""
    is_there = name in levels
    status, reason = ("False", "Found") if is_there else ("True", "NotFound")
    told = "and it exists" if is_there else "but there is no such object"
    conditions = (schema.get("status") or {}).get("conditions") or []
    present = next((condition for condition in conditions if condition.get("type") == "Dangling"), None)
    if present is not None and present.get("status") == status:
        return
    changed = orjson.loads(orjson.dumps(schema))
    condition = {
        "type": "Dangling",
        "status": status,
        "lastTransitionTime": timestamp_seconds(api.core.clock()),
        "reason": reason,
        "message": f'This FlowSchema references the PriorityLevelConfiguration object named "{name}" {told}',
    }
    changed.setdefault("status", {})["conditions"] = [*(each for each in conditions if each.get("type") != "Dangling"), condition]
    await api.update(Call(_WRITER, "update", kind, None, schema["metadata"]["name"], "status"), changed)
