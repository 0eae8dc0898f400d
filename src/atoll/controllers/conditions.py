"""Status conditions: setting one by type, with lastTransitionTime moving only when the status does."""

from __future__ import annotations

from atoll.client.objects import Object

Conditions = list[Object]


def condition(kind: str, status: str, reason: str, message: str, now: str, *, updated: bool = False) -> Object:
    """A condition; with `updated` it carries lastUpdateTime too, as those of deployments do."""
    made = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
    if updated:
        made["lastUpdateTime"] = now
    return made


def find(conditions: Conditions | None, kind: str) -> Object | None:
    for entry in conditions or ():
        if entry.get("type") == kind:
            return entry
    return None


def put(conditions: Conditions | None, new: Object) -> Conditions:
    """A new list with `new` in it. Same status and reason: the old entry stays as it is; same status: it keeps its lastTransitionTime."""
    old = find(conditions, new["type"])
    if old is not None and old["status"] == new["status"] and old.get("reason") == new.get("reason"):
        return list(conditions or ())
    if old is not None and old["status"] == new["status"]:
        new = {**new, "lastTransitionTime": old.get("lastTransitionTime", new["lastTransitionTime"])}
    return [*without(conditions, new["type"]), new]


def without(conditions: Conditions | None, kind: str) -> Conditions:
    return [entry for entry in conditions or () if entry.get("type") != kind]
