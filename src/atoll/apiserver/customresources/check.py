"""Validation of a value against its node, in the words of upstream's validator (kube-openapi's, as apiextensions words it).

With an old value in hand only what changed is judged: an object that was right under an earlier schema can still be updated elsewhere
(upstream's validation ratcheting). List items are matched by their keys for that; items of other lists have no old value.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.customresources.nodes import Limits, Node, canonical
from atoll.apiserver.kinds.causes import Causes, shown
from atoll.apiserver.machinery.kind import Cause

ABSENT: Any = object()
CAUSES_MAX = 100  # an object wrong in more places is wrong enough
_TYPES: dict[str, tuple[type, ...]] = {"object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,)}


def check(node: Node, value: Any, path: str, causes: Causes, old: Any = ABSENT) -> None:
    if len(causes) >= CAUSES_MAX or (old is not ABSENT and old == value and canonical(old) == canonical(value)):
        return
    if value is None and node.nullable:
        return
    if not _has_type(node, value):
        _mistyped(path, node.type or "integer,string", value, causes)
        return
    _junctors(node.limits, value, path, causes)
    _enum(node.limits, value, path, causes)
    if isinstance(value, str):
        _string(node.limits, value, path, causes)
    elif isinstance(value, dict):
        _object(node, value, path, causes, old)
    elif isinstance(value, list):
        _list(node, value, path, causes, old)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(node.limits, value, path, causes)


def _has_type(node: Node, value: Any) -> bool:
    if node.int_or_string:
        return isinstance(value, str) or _is_integer(value)
    if not node.type:
        return True
    if node.type == "integer":
        return _is_integer(value)
    if node.type == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES.get(node.type, ()))


def _is_integer(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def kind_of(value: Any) -> str:
    """The JSON type as messages name it."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "integer" if _is_integer(value) else "number"


def _mistyped(path: str, wanted: str, value: Any, causes: Causes) -> None:
    kind = kind_of(value)
    told = f'Invalid value: "{kind}": {path} in body must be of type {wanted}: "{kind}"'
    causes.append(Cause("FieldValueTypeInvalid", told, path or "<nil>"))


def _body(path: str, value: Any, what: str, causes: Causes) -> None:
    causes.invalid(path or "<nil>", value, f"{path} in body {what}")


def _string(limits: Limits, value: str, path: str, causes: Causes) -> None:
    if limits.max_length is not None and len(value) > limits.max_length:
        causes.too_long(path, limits.max_length)
    if limits.min_length is not None and len(value) < limits.min_length:
        _body(path, value, f"should be at least {limits.min_length} chars long", causes)
    if limits.pattern is not None and not limits.pattern.matches(value):
        _body(path, value, f"should match '{limits.pattern.text}'", causes)
    _format(limits, value, path, causes)


def _format(limits: Limits, value: Any, path: str, causes: Causes) -> None:
    if limits.has_format is not None and not limits.has_format(value):
        _body(path, value, f"must be of type {limits.format}: {shown(value)}", causes)


def _number(limits: Limits, value: float, path: str, causes: Causes) -> None:
    low, high = limits.minimum, limits.maximum
    if high is not None and (value >= high if limits.exclusive_maximum else value > high):
        _body(path, value, f"should be less than {'' if limits.exclusive_maximum else 'or equal to '}{shown(high)}", causes)
    if low is not None and (value <= low if limits.exclusive_minimum else value < low):
        _body(path, value, f"should be greater than {'' if limits.exclusive_minimum else 'or equal to '}{shown(low)}", causes)
    if limits.multiple_of and not _is_multiple(value, limits.multiple_of):
        _body(path, value, f"should be a multiple of {shown(limits.multiple_of)}", causes)
    _format(limits, value, path, causes)


def _is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    return abs(value / of) < 1 << 53 and (value / of).is_integer()


def _enum(limits: Limits, value: Any, path: str, causes: Causes) -> None:
    if limits.enum is not None and canonical(value) not in limits.enum:
        causes.unsupported(path or "<nil>", value, limits.enum_shown)


def _object(node: Node, value: dict[str, Any], path: str, causes: Causes, old: Any) -> None:
    limits, count = node.limits, len(value)
    before = old if isinstance(old, dict) else {}
    if limits.max_properties is not None and count > limits.max_properties:
        causes.too_many(path, count, limits.max_properties)
    if limits.min_properties is not None and count < limits.min_properties:
        _body(path, value, f"should have at least {limits.min_properties} properties", causes)
    for name in limits.required:
        if name not in value:
            causes.required(f"{path}.{name}" if path else name)
    for name, item in value.items():
        child = node.child(name)
        if child is not None:
            # A field of a struct is joined by a dot, and so is a map's, as upstream writes both.
            check(child, item, f"{path}.{name}" if path else name, causes, before.get(name, ABSENT))
    if node.embedded:
        _embedded(value, path, causes)


def _embedded(value: dict[str, Any], path: str, causes: Causes) -> None:
    for name in ("apiVersion", "kind"):
        if not value.get(name):
            causes.required(f"{path}.{name}", "must not be empty")


def _list(node: Node, value: list[Any], path: str, causes: Causes, old: Any) -> None:
    limits, count = node.limits, len(value)
    if limits.max_items is not None and count > limits.max_items:
        causes.too_many(path, count, limits.max_items)
        return
    if limits.min_items is not None and count < limits.min_items:
        _body(path, value, f"should have at least {limits.min_items} items", causes)
    before = items_by_key(node, old)
    if node.items is not None:
        for index, item in enumerate(value):
            check(node.items, item, f"{path}[{index}]", causes, before.get(key_of(node, item), ABSENT) if before else ABSENT)
    if node.list_type in ("set", "map"):
        _unique(node, value, path, causes)


def _unique(node: Node, value: list[Any], path: str, causes: Causes) -> None:
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        key = key_of(node, item) if node.list_type == "map" else canonical(item)
        if key is None:
            continue
        if key in seen:
            told = {name: item[name] for name in node.list_map_keys if name in item} if node.list_type == "map" else item
            causes.duplicate(f"{path}[{index}]", told)
        seen.add(key)


def key_of(node: Node, item: Any) -> bytes | None:
    """What an item of a list-map is known by; None for items of other lists."""
    if node.list_type != "map" or not isinstance(item, dict):
        return None
    return canonical([item.get(name) for name in node.list_map_keys])


def items_by_key(node: Node, items: Any) -> dict[bytes | None, Any]:
    if node.list_type != "map" or not isinstance(items, list):
        return {}
    return {key: item for item in items if (key := key_of(node, item)) is not None}


def _junctors(limits: Limits, value: Any, path: str, causes: Causes) -> None:
    if limits.all_of:
        failed = [each for node in limits.all_of if (each := _trial(node, value, path))]
        for each in failed:
            causes.extend(each)
        if failed:
            _must(path, "validate all the schemas (allOf)" + (". None validated" if len(failed) == len(limits.all_of) else ""), causes)
    if limits.any_of:
        trials = [_trial(node, value, path) for node in limits.any_of]
        if all(trials):
            causes.extend(_nearest(trials))
            _must(path, "validate at least one schema (anyOf)", causes)
    if limits.one_of:
        trials = [_trial(node, value, path) for node in limits.one_of]
        valid = sum(not trial for trial in trials)
        if not valid:
            causes.extend(_nearest(trials))
            _must(path, "validate one and only one schema (oneOf). Found none valid", causes)
        elif valid > 1:
            _must(path, f"validate one and only one schema (oneOf). Found {valid} valid alternatives", causes)
    if limits.negated is not None and not _trial(limits.negated, value, path):
        _must(path, "not validate the schema (not)", causes)


def _nearest(trials: list[Causes]) -> Causes:
    """The failure with the least wrong: what its author most likely meant."""
    return min(trials, key=lambda trial: len(trial))  # noqa: PLW0108 (len does not type as a key here)


def _trial(node: Node, value: Any, path: str) -> Causes:
    causes = Causes()
    check(node, value, path, causes)
    return causes


def _must(path: str, what: str, causes: Causes) -> None:
    causes.invalid(path or "<nil>", "", f'"{path}" must {what}')
