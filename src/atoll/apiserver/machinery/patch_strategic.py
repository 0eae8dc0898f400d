"""Strategic merge patch: a merge patch that knows from the schema which lists are sets or maps, and takes directives.

Directives: `$patch: replace|delete|merge` in a map or list item, `$retainKeys`, `$deleteFromPrimitiveList/<field>` and
`$setElementOrder/<field>`. The order of merged lists follows apimachinery's strategicpatch: items the patch names stand in its order, the
others keep their place among them as far as the stored order tells; a new item comes before what it cannot be compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import ListMeta

DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
ELEMENT_ORDER = "$setElementOrder/"

Path = tuple[str, ...]
MetaOf = Callable[[Path], ListMeta]


def apply_strategic_patch(document: dict[str, Any], patch: Any, meta_of: MetaOf) -> dict[str, Any]:
    """The patched document, the caller's own copy changed in place. Raises StatusError 400."""
    if not isinstance(patch, dict):
        raise statuses.bad_request("error decoding patch: a strategic merge patch is an object")
    return _merge_map(document, patch, (), meta_of)


def _merge_map(stored: dict[str, Any], patch: dict[str, Any], path: Path, meta_of: MetaOf) -> dict[str, Any]:
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise statuses.bad_request(f"Unknown patch type found: {directive}")
    if RETAIN in patch:
        _retain(stored, patch, path)
    orders: dict[str, list[Any]] = {}
    for key, value in patch.items():
        if key in (DIRECTIVE, RETAIN):
            continue
        if key.startswith(ELEMENT_ORDER):
            orders[key.removeprefix(ELEMENT_ORDER)] = _as_list(value, key)
        elif key.startswith(DELETE_PRIMITIVES):
            field = key.removeprefix(DELETE_PRIMITIVES)
            gone = _as_list(value, key)
            if isinstance(stored.get(field), list):
                stored[field] = [item for item in stored[field] if item not in gone]
        elif value is None:
            stored.pop(key, None)
        elif key not in orders and f"{ELEMENT_ORDER}{key}" not in patch:
            stored[key] = _merge_value(stored.get(key), value, (*path, key), meta_of, None)
    for key, order in orders.items():
        stored_value = stored.get(key)
        given = patch.get(key, [])
        if stored_value is None and not given:
            continue
        stored[key] = _merge_value(stored_value, given, (*path, key), meta_of, order)
    return stored


def _retain(stored: dict[str, Any], patch: dict[str, Any], path: Path) -> None:
    kept = _as_list(patch[RETAIN], RETAIN)
    extra = [key for key in patch if not key.startswith("$") and key not in kept]
    if extra:
        raise statuses.bad_request(f"{RETAIN} at {'.'.join(path) or '.'} does not contain the fields of the patch: {', '.join(extra)}")
    for key in [key for key in stored if key not in kept]:
        del stored[key]


def _merge_value(stored: Any, value: Any, path: Path, meta_of: MetaOf, order: list[Any] | None) -> Any:
    if isinstance(value, dict):
        if "replace" in meta_of(path).patch_strategy:
            return _merge_map({}, value, path, meta_of)
        return _merge_map(stored if isinstance(stored, dict) else {}, value, path, meta_of)
    if isinstance(value, list):
        meta = meta_of(path)
        if "merge" not in meta.patch_strategy:
            return _without_directives(value, path, meta_of)
        merged = _merge_list(stored if isinstance(stored, list) else [], value, path, meta, meta_of)
        return _ordered(merged, stored if isinstance(stored, list) else [], value if order is None else order, meta.merge_key)
    return value


def _merge_list(stored: list[Any], patch: list[Any], path: Path, meta: ListMeta, meta_of: MetaOf) -> list[Any]:
    key = meta.merge_key
    if not key:
        return stored + [item for index, item in enumerate(patch) if item not in stored and item not in patch[:index]]
    merged = list(stored)
    if any(isinstance(item, dict) and item.get(DIRECTIVE) == "replace" and key not in item for item in patch):
        merged = []
    for item in patch:
        if not isinstance(item, dict):
            raise statuses.bad_request(f"{'.'.join(path)}: items must be objects, found {item!r}")
        directive = item.get(DIRECTIVE)
        if key not in item:
            if directive == "replace":
                continue
            raise statuses.bad_request(f"map: {item!r} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if directive == "delete":
            merged = [old for old in merged if not (isinstance(old, dict) and old.get(key) == item[key])]
        elif at is None:
            merged.append(_merge_map({}, item, (*path, "*"), meta_of))
        else:
            merged[at] = _merge_map(dict(merged[at]), item, (*path, "*"), meta_of)
    return merged


def _without_directives(items: list[Any], path: Path, meta_of: MetaOf) -> list[Any]:
    return [_merge_map({}, item, (*path, "*"), meta_of) if isinstance(item, dict) else item for item in items if item is not None]


def _ordered(merged: list[Any], stored: list[Any], order: list[Any], key: str) -> list[Any]:
    """Items named by `order` in its order; the others where the stored order puts them relative to those."""

    def identity(item: Any) -> Any:
        if not key:
            return item
        return item.get(key) if isinstance(item, dict) else None

    wanted = [identity(item) for item in order if identity(item) is not None]
    place = [identity(item) for item in stored]
    named = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in merged if identity(item) not in wanted]
    result: list[Any] = []
    while named and others:
        first, second = identity(others[0]), identity(named[0])
        known = first in place and second in place and place.index(first) < place.index(second)
        result.append(others.pop(0) if known else named.pop(0))
    return result + named + others


def _as_list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise statuses.bad_request(f"error decoding patch: {key} must be a list")
    return value
