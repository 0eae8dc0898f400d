"""Server-side apply: an object is what its managers together say, each field owned by those who set it.

An apply merges its configuration into the live object, takes away what the same manager had applied before and names no more, and is
refused where it would change a field another manager owns, unless forced. Who owns what is kept in metadata.managedFields. Fields are
followed from an object's first apply on; what it held before then belongs to `before-first-apply`, as upstream says of objects it did not
follow.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.machinery import fieldsets, statuses
from atoll.apiserver.machinery.fieldsets import SELF, Fields, MetaOf, Path
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.machinery.kind import Kind
from atoll.errors import StatusError

BEFORE = "before-first-apply"
# Never owned: they name the object, or are the server's (structured-merge-diff's stripped fields).
_UNOWNED_METADATA = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "selfLink",
    "generation",
    "managedFields",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
Entry = dict[str, Any]


def apply_configuration(
    kind: Kind, live: Object | None, applied: Object, manager: str, subresource: str, now: str, *, force: bool
) -> Object:
    """The merged object with its new managedFields; `live` is the caller's own copy, None when there is none yet.

    Raises StatusError 400 for a configuration that cannot be merged, 409 naming each conflict.
    """
    meta_of = kind.schema.patch_meta
    if (applied.get("metadata") or {}).get("managedFields"):
        raise statuses.bad_request("metadata.managedFields must be nil")
    try:
        wanted = fieldsets.fields_of(owned_part(applied), meta_of)
        entries: list[Entry] = list((live or {}).get("metadata", {}).get("managedFields") or ())
        if live is not None and not entries:
            entries = [_entry(BEFORE, "Update", kind.api_version, "", now, fieldsets.fields_of(owned_part(live), meta_of))]
        mine = next((entry for entry in entries if _is_mine(entry, manager, subresource)), None)
        others = [entry for entry in entries if entry is not mine]
        if live is None:
            merged = dict(applied)
        else:
            others = _settle(kind, live, applied, wanted, others, meta_of, manager, force=force)
            merged = _merge(live, applied, meta_of, ())
            dropped = fieldsets.difference(mine["fieldsV1"] if mine else {}, wanted)
            for entry in others:
                dropped = fieldsets.difference(dropped, entry["fieldsV1"])
            _drop(merged, dropped, meta_of, ())
    except ValueError as error:
        raise statuses.bad_request(f"failed to create typed patch object: {error}") from None
    unchanged = mine is not None and mine["fieldsV1"] == wanted
    stamp = str(mine["time"]) if mine is not None and unchanged else now
    own = _entry(manager, "Apply", kind.api_version, subresource, stamp, wanted)
    kept = [entry for entry in others if entry["fieldsV1"]]
    if wanted:
        # In the place it had: an apply that changes nothing must leave the object as it was.
        kept.insert(next((at for at, entry in enumerate(entries) if entry is mine), 0), own)
    merged["metadata"] = {**merged["metadata"], "managedFields": kept}
    return merged


def follow_update(kind: Kind, old: Object, new: Object, manager: str, subresource: str, now: str) -> None:
    """After a write that is no apply, give what it changed to its manager. `new` is changed in place, when it is followed at all."""
    entries: list[Entry] = list(old["metadata"].get("managedFields") or ())
    if not entries:
        return
    meta_of = kind.schema.patch_meta
    difference = fieldsets.changed(owned_part(old), owned_part(new), meta_of)
    if not difference:
        return
    entries = [{**entry, "fieldsV1": fieldsets.difference(entry["fieldsV1"], difference)} for entry in entries]
    present = fieldsets.intersection(fieldsets.fields_of(owned_part(new), meta_of), difference)
    mine = next((e for e in entries if (e["manager"], e["operation"], e.get("subresource", "")) == (manager, "Update", subresource)), None)
    fields = fieldsets.union(mine["fieldsV1"], present) if mine else present
    kept = [entry for entry in entries if entry is not mine and entry["fieldsV1"]]
    if fields:
        kept.append(_entry(manager, "Update", kind.api_version, subresource, now, fields))
    new["metadata"]["managedFields"] = kept


def owned_part(obj: Object) -> Object:
    """What of an object can be owned."""
    metadata = {name: value for name, value in (obj.get("metadata") or {}).items() if name not in _UNOWNED_METADATA}
    rest = {name: value for name, value in obj.items() if name not in ("kind", "apiVersion", "metadata")}
    return {**({"metadata": metadata} if metadata else {}), **rest}


def _is_mine(entry: Entry, manager: str, subresource: str) -> bool:
    return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, "Apply", subresource)


def _entry(manager: str, operation: str, version: str, subresource: str, now: str, fields: Fields) -> Entry:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return {**entry, "subresource": subresource} if subresource else entry


def _settle(
    kind: Kind, live: Object, applied: Object, wanted: Fields, others: list[Entry], meta_of: MetaOf, manager: str, *, force: bool
) -> list[Entry]:
    """The other managers' entries after this apply. Raises StatusError 409 where they own what it would change."""
    contested = fieldsets.intersection(
        fieldsets.changed(owned_part(live), _merge(owned_part(live), owned_part(applied), meta_of, ()), meta_of), wanted
    )
    conflicts = []
    settled = []
    for entry in others:
        theirs = fieldsets.intersection(entry["fieldsV1"], contested)
        if theirs:
            conflicts.append((entry, theirs))
        settled.append({**entry, "fieldsV1": fieldsets.difference(entry["fieldsV1"], contested)} if theirs else entry)
    if conflicts and not force:
        raise _conflict(kind, conflicts)
    return settled


def _conflict(kind: Kind, conflicts: list[tuple[Entry, Fields]]) -> StatusError:
    causes, lines = [], []
    for entry, fields in conflicts:
        who = f'"{entry["manager"]}"' + (f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else "")
        who += f" using {entry['apiVersion']}" if entry["operation"] == "Update" or entry["apiVersion"] != kind.api_version else ""
        for path in fieldsets.leaves(fields):
            causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": fieldsets.shown(path)})
            lines.append((who, fieldsets.shown(path)))
    if len(lines) == 1:
        text = f"Apply failed with 1 conflict: conflict with {lines[0][0]}: {lines[0][1]}"
    else:
        by_manager: dict[str, list[str]] = {}
        for who, where in lines:
            by_manager.setdefault(who, []).append(f"- {where}")
        listed = "\n".join(f"conflicts with {who}:\n" + "\n".join(paths) for who, paths in by_manager.items())
        text = f"Apply failed with {len(lines)} conflicts: {listed}"
    return StatusError(409, "Conflict", text, {"causes": causes})


def _merge(live: Any, applied: Any, meta_of: MetaOf, path: Path) -> Any:
    meta = meta_of(path)
    if isinstance(live, dict) and isinstance(applied, dict) and meta.map_type != "atomic":
        merged = dict(live)
        for name, value in applied.items():
            merged[name] = _merge(live[name], value, meta_of, (*path, name)) if name in live else value
        return merged
    if isinstance(live, list) and isinstance(applied, list) and fieldsets.is_mergeable(meta):
        before, after = fieldsets.items_by_key(live, meta), fieldsets.items_by_key(applied, meta)
        if len(after) != len(applied):
            raise ValueError(f"{'.'.join(path)}: duplicate entries for one key")
        kept = {key: _merge(item, after[key], meta_of, (*path, "*")) if key in after else item for key, item in before.items()}
        return [*kept.values(), *(item for key, item in after.items() if key not in before)]
    return applied


def _drop(value: Any, fields: Fields, meta_of: MetaOf, path: Path) -> None:
    """Take the fields out of a merged value, in place. An item of a list goes when its own mark does."""
    if isinstance(value, dict):
        for element, inner in fields.items():
            name = element[2:]
            if name not in value:
                continue
            if inner:
                value[name] = value[name].copy() if isinstance(value[name], dict | list) else value[name]
                _drop(value[name], inner, meta_of, (*path, name))
                if value[name] in ({}, []):
                    del value[name]
            else:
                del value[name]
    elif isinstance(value, list):
        items = fieldsets.items_by_key(value, meta_of(path))
        for element, inner in fields.items():
            if element not in items:
                continue
            if not inner or SELF in inner:
                del items[element]
            else:
                items[element] = items[element].copy()
                _drop(items[element], inner, meta_of, (*path, "*"))
        value[:] = items.values()
