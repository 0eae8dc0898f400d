"""Strategic merge patch: a merge patch that knows from the schema which lists are sets or maps, and takes directives.

Directives: `$patch: replace|delete|merge` in a map or list item, `$retainKeys`, `$deleteFromPrimitiveList/<field>` and
`$setElementOrder/<field>`. The order of merged lists follows apimachinery's strategicpatch: items the patch names stand in its order, the
others keep their place among them as far as the stored order tells; a new item comes before what it cannot be compared with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import ListMeta

DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
ELEMENT_ORDER = "$setElementOrder/"
_GONE = object()

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
                doomed = set(map(_comparable, gone))
                stored[field] = [item for item in stored[field] if _comparable(item) not in doomed]
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
        known = set(map(_comparable, stored))
        fresh: dict[Hashable, Any] = {}
        for item in patch:
            fresh.setdefault(_comparable(item), item)
        return stored + [item for what, item in fresh.items() if what not in known]
    merged = list(stored)
    if any(isinstance(item, dict) and item.get(DIRECTIVE) == "replace" and key not in item for item in patch):
        merged = []
    places: dict[Hashable, list[int]] = {}
    for at, old in enumerate(merged):
        if isinstance(old, dict):
            places.setdefault(_comparable(old.get(key)), []).append(at)
    for item in patch:
        if not isinstance(item, dict):
            raise statuses.bad_request(f"{'.'.join(path)}: items must be objects, found {item!r}")
        directive = item.get(DIRECTIVE)
        if key not in item:
            if directive == "replace":
                continue
            raise statuses.bad_request(f"map: {item!r} does not contain declared merge key: {key}")
        name = _comparable(item[key])
        found = places.get(name)
        if directive == "delete":
            for at in places.pop(name, ()):
                merged[at] = _GONE
        elif found is None:
            places[name] = [len(merged)]
            merged.append(_merge_map({}, item, (*path, "*"), meta_of))
        else:
            merged[found[0]] = _merge_map(dict(merged[found[0]]), item, (*path, "*"), meta_of)
    return [item for item in merged if item is not _GONE]


def _without_directives(items: list[Any], path: Path, meta_of: MetaOf) -> list[Any]:
    return [_merge_map({}, item, (*path, "*"), meta_of) if isinstance(item, dict) else item for item in items if item is not None]


def _ordered(merged: list[Any], stored: list[Any], order: list[Any], key: str) -> list[Any]:
    """Items named by `order` in its order; the others where the stored order puts them relative to those."""

    def identity(item: Any) -> Hashable:
        if not key:
            return _comparable(item)
        return _comparable(item.get(key)) if isinstance(item, dict) else None

    wanted, place = _first_places(map(identity, order)), _first_places(map(identity, stored))
    wanted.pop(None, None)
    named = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted[identity(item)])
    others = [item for item in merged if identity(item) not in wanted]
    result: list[Any] = []
    others_taken = named_taken = 0
    while named_taken < len(named) and others_taken < len(others):
        first, second = place.get(identity(others[others_taken])), place.get(identity(named[named_taken]))
        if first is not None and second is not None and first < second:
            result.append(others[others_taken])
            others_taken += 1
        else:
            result.append(named[named_taken])
            named_taken += 1
    return result + named[named_taken:] + others[others_taken:]


def _first_places(names: Iterable[Hashable]) -> dict[Hashable, int]:
    found: dict[Hashable, int] = {}
    for at, name in enumerate(names):
        found.setdefault(name, at)
    return found


def _comparable(value: Any) -> Hashable:
    """The value, or a text that equal objects and lists share: comparing each with each takes minutes where a list is long."""
    if isinstance(value, dict | list):
        return "json", json.dumps(value, sort_keys=True)
    return value  # type: ignore[no-any-return]


def _as_list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise statuses.bad_request(f"error decoding patch: {key} must be a list")
    return value
