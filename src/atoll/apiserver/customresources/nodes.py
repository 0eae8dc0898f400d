"""A structural schema compiled to nodes, each of which knows what may stand at one place of an object.

Compiling trusts the schema: a definition is stored only after `structure` has found nothing wrong with it. Subschemas of allOf, anyOf,
oneOf and not are nodes too, with value validations only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.customresources.formats import Format, format_check
from atoll.apiserver.customresources.patterns import Pattern

_ABSENT = b""


class Rule(NamedTuple):
    """One entry of x-kubernetes-validations."""

    text: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool = False

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Rule:
        return cls(
            raw.get("rule", ""),
            raw.get("message", ""),
            raw.get("messageExpression", ""),
            raw.get("reason", ""),
            raw.get("fieldPath", ""),
            bool(raw.get("optionalOldSelf")),
        )


@dataclass(slots=True)
class Limits:
    """The validations of a value beyond its structure; None where there is none."""

    required: tuple[str, ...] = ()
    enum: frozenset[bytes] | None = None  # as canonical JSON, so that 1 and true differ
    enum_shown: tuple[str, ...] = ()
    pattern: Pattern | None = None
    format: str = ""
    has_format: Format | None = None
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    all_of: tuple[Node, ...] = ()
    any_of: tuple[Node, ...] = ()
    one_of: tuple[Node, ...] = ()
    negated: Node | None = None


@dataclass(slots=True)
class Node:
    """`additional` is None where other names than those of `properties` are unknown, True where they may be anything."""

    type: str = ""
    nullable: bool = False
    int_or_string: bool = False
    preserves: bool = False
    embedded: bool = False
    properties: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None
    additional: Node | bool | None = None
    default: bytes = _ABSENT
    list_type: str = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: str = ""
    limits: Limits = field(default_factory=Limits)
    rules: tuple[Rule, ...] = ()
    has_defaults: bool = False  # here or below
    has_rules: bool = False

    @property
    def has_default(self) -> bool:
        return self.default != _ABSENT

    def new_default(self) -> Any:
        return orjson.loads(self.default)

    def child(self, name: str) -> Node | None:
        """The node of a field or a map's value."""
        found = self.properties.get(name)
        if found is None and isinstance(self.additional, Node):
            return self.additional
        return found


def compile_schema(raw: dict[str, Any]) -> Node:
    """A node and all below it, from JSONSchemaProps."""
    node = Node(
        type=raw.get("type", ""),
        nullable=bool(raw.get("nullable")),
        int_or_string=bool(raw.get("x-kubernetes-int-or-string")),
        preserves=bool(raw.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(raw.get("x-kubernetes-embedded-resource")),
        properties={name: compile_schema(child) for name, child in (raw.get("properties") or {}).items()},
        items=compile_schema(raw["items"]) if isinstance(raw.get("items"), dict) else None,
        additional=_additional(raw.get("additionalProperties")),
        default=orjson.dumps(raw["default"]) if raw.get("default") is not None else _ABSENT,
        list_type=raw.get("x-kubernetes-list-type", ""),
        list_map_keys=tuple(raw.get("x-kubernetes-list-map-keys") or ()),
        map_type=raw.get("x-kubernetes-map-type", ""),
        limits=_limits(raw),
        rules=tuple(Rule.of(rule) for rule in raw.get("x-kubernetes-validations") or ()),
    )
    below = [*node.properties.values(), *(each for each in (node.items, node.additional) if isinstance(each, Node))]
    node.has_defaults = node.has_default or any(child.has_defaults for child in below)
    node.has_rules = bool(node.rules) or any(child.has_rules for child in below)
    return node


def _additional(raw: Any) -> Node | bool | None:
    if isinstance(raw, dict):
        return compile_schema(raw)
    return True if raw is True else None


def _several(raw: dict[str, Any], name: str) -> tuple[Node, ...]:
    return tuple(compile_schema(each) for each in raw.get(name) or ())


_NO_LIMITS = Limits()
_LIMITING = frozenset(
    [
        "required",
        "enum",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ]
)


def _limits(raw: dict[str, Any]) -> Limits:
    if raw.keys().isdisjoint(_LIMITING):
        return _NO_LIMITS  # most nodes of large schemas have none
    enum = raw.get("enum")
    kind = raw.get("format", "")
    return Limits(
        required=tuple(raw.get("required") or ()),
        enum=frozenset(canonical(value) for value in enum) if enum else None,
        enum_shown=tuple(value if isinstance(value, str) else orjson.dumps(value).decode() for value in enum or ()),
        pattern=Pattern(raw["pattern"]) if raw.get("pattern") else None,
        format=kind,
        has_format=format_check(kind),
        minimum=raw.get("minimum"),
        maximum=raw.get("maximum"),
        exclusive_minimum=bool(raw.get("exclusiveMinimum")),
        exclusive_maximum=bool(raw.get("exclusiveMaximum")),
        multiple_of=raw.get("multipleOf"),
        min_length=raw.get("minLength"),
        max_length=raw.get("maxLength"),
        min_items=raw.get("minItems"),
        max_items=raw.get("maxItems"),
        min_properties=raw.get("minProperties"),
        max_properties=raw.get("maxProperties"),
        all_of=_several(raw, "allOf"),
        any_of=_several(raw, "anyOf"),
        one_of=_several(raw, "oneOf"),
        negated=compile_schema(raw["not"]) if raw.get("not") else None,
    )


def canonical(value: Any) -> bytes:
    """A value's one JSON text: equal values give equal bytes, values of different types different ones."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
