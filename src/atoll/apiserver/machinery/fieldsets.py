"""Sets of fields, in the form in which metadata.managedFields keeps them (FieldsV1): nested dicts by path element.

`f:<name>` is a field, `k:{...}` an item of a list-map by its keys, `v:<value>` a member of a set; an empty dict ends a path, `.` inside a
non-empty one says that the item itself belongs to the set too (structured-merge-diff, fieldpath).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from atoll.apiserver.machinery.kind import ListMeta

Fields = dict[str, Any]
Path = tuple[str, ...]
MetaOf = Callable[[Path], ListMeta]
SELF = "."
# Keys of list-maps that the schema fills in when they are left out; ports are the only such list.
_KEY_DEFAULTS = {"protocol": "TCP"}


def fields_of(value: Any, meta_of: MetaOf, path: Path = ()) -> Fields:
    """The fields a value sets. Atomic lists and maps, and scalars, are single fields."""
    meta = meta_of(path)
    if isinstance(value, dict) and value and meta.map_type != "atomic":
        return {f"f:{name}": fields_of(child, meta_of, (*path, name)) for name, child in value.items()}
    if isinstance(value, list) and value and is_mergeable(meta):
        if meta.list_type == "set":
            return {f"v:{_text(item)}": {} for item in value}
        keyed = ((item_key(item, meta), item) for item in value)
        return {f"k:{_text(key)}": {SELF: {}, **fields_of(item, meta_of, (*path, "*"))} for key, item in keyed}
    return {}


def is_mergeable(meta: ListMeta) -> bool:
    return meta.list_type == "set" or (meta.list_type == "map" and bool(meta.list_map_keys))


def item_key(item: Any, meta: ListMeta) -> dict[str, Any]:
    """The keys of an item of a list-map. Raises ValueError when one is missing."""
    key = {}
    for name in meta.list_map_keys:
        value = item.get(name, _KEY_DEFAULTS.get(name)) if isinstance(item, dict) else None
        if value is None:
            raise ValueError(f"associative list with keys has an element that omits key field {name!r}")
        key[name] = value
    return key


def union(a: Fields, b: Fields) -> Fields:
    return {
        name: union(a[name], b[name]) if name in a and name in b else a.get(name, b.get(name, {})) for name in (*a, *(b.keys() - a.keys()))
    }


def difference(a: Fields, b: Fields) -> Fields:
    """The fields of `a` without those of `b`. Branches that end up empty go."""
    result: Fields = {}
    for name, inner in a.items():
        if name not in b:
            result[name] = inner
        elif inner and (rest := difference(inner, b[name])):
            result[name] = rest
    return result


def intersection(a: Fields, b: Fields) -> Fields:
    """Fields in both; where one says a whole and the other a part, the part."""
    result: Fields = {}
    for name in a.keys() & b.keys():
        inner = intersection(a[name], b[name])
        if inner or not a[name] or not b[name]:
            result[name] = inner
    return result


def leaves(fields: Fields, path: Path = ()) -> Iterator[Path]:
    """Every path of the set, `.` entries as the path of their item."""
    for name, inner in fields.items():
        if name == SELF:
            yield path
        elif inner:
            yield from leaves(inner, (*path, name))
        else:
            yield (*path, name)


def changed(old: Any, new: Any, meta_of: MetaOf, path: Path = ()) -> Fields:
    """The fields whose value differs between two objects, those that are gone included."""
    meta = meta_of(path)
    if isinstance(old, dict) and isinstance(new, dict) and meta.map_type != "atomic":
        result = {}
        for name in (*new, *(old.keys() - new.keys())):
            if name not in old or name not in new:
                result[f"f:{name}"] = fields_of(new.get(name, old.get(name)), meta_of, (*path, name))
            elif old[name] != new[name]:
                result[f"f:{name}"] = changed(old[name], new[name], meta_of, (*path, name))
        return result
    if isinstance(old, list) and isinstance(new, list) and is_mergeable(meta):
        before, after = items_by_key(old, meta), items_by_key(new, meta)
        result = {}
        for element in (*after, *(before.keys() - after.keys())):
            if element not in before or element not in after:
                item = after.get(element, before.get(element))
                inner = {SELF: {}, **fields_of(item, meta_of, (*path, "*"))} if element.startswith("k:") else {}
                result[element] = inner
            elif before[element] != after[element]:
                result[element] = changed(before[element], after[element], meta_of, (*path, "*"))
        return result
    return {}


def items_by_key(items: list[Any], meta: ListMeta) -> dict[str, Any]:
    """The items of a mergeable list by their path element."""
    if meta.list_type == "set":
        return {f"v:{_text(item)}": item for item in items}
    return {f"k:{_text(item_key(item, meta))}": item for item in items}


def shown(path: Path) -> str:
    """A path as conflicts name it: .spec.containers[name="web"].image."""
    text = ""
    for element in path:
        mark, _, rest = element.partition(":")
        if mark == "f":
            text += f".{rest}"
        elif mark == "k":
            keys: Mapping[str, Any] = orjson.loads(rest)
            text += "[" + ",".join(f"{name}={orjson.dumps(value).decode()}" for name, value in keys.items()) + "]"
        else:
            text += f"[={rest}]"
    return text


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
