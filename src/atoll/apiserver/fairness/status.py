"""Whether each flow schema leads to a priority level that is there: its condition Dangling."""

from __future__ import annotations

from typing import Any

import orjson

from atoll.apiserver.api import Api
from atoll.apiserver.call import MASTERS, Call, User
from atoll.apiserver.fairness.bootstrap import GROUP, LEVELS, SCHEMAS
from atoll.apiserver.following import follow
from atoll.apiserver.machinery.kind import Kind
from atoll.units import timestamp_seconds

_WRITER = User("system:apiserver", (MASTERS,))


async def tell_dangling(api: Api) -> None:
    """Keep the conditions true; runs until cancelled."""
    registry = api.core.registry
    schemas, levels = (registry.get(GROUP, "v1", plural) for plural in (SCHEMAS, LEVELS))
    assert schemas is not None
    assert levels is not None
    cachers = [api.core.cacher(kind) for kind in (schemas, levels)]

    async def look() -> None:
        present = {level.key for level in cachers[1].items()}
        for item in list(cachers[0].items()):
            await _tell(api, schemas, item.obj, present)

    await follow(cachers, look)


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
