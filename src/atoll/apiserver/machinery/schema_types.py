"""The types of fields, compiled from `schemas.bin` to objects that check and clean values.

Each node has two gaits. `accepts` answers whether a value is right and needs no cleaning; it touches each field once, builds nothing,
and is what nearly every write runs. `take` walks with the path in hand: it returns the cleaned value, notes unknown fields, and raises
`DecodeError` in the words of Go's decoder. Cleaning is what a round trip through upstream's types does: unknown fields and nulls go, empty
lists and maps go unless the field is always written, quantities and times become canonical.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from atoll.apiserver.machinery.kind import Cause, Shape


class DecodeError(Exception):
    """The message of upstream's decoder, without the object's version and kind in front."""


class Where(NamedTuple):
    """`path` is a field's path as messages show it, `go` the same as Go's decoder shows it (no indices), `struct` the type that has it."""

    path: str
    go: str
    struct: str

    def field(self, name: str, struct: str) -> Where:
        return Where(f"{self.path}.{name}" if self.path else name, f"{self.go}.{name}" if self.go else name, struct)

    def item(self, index: int) -> Where:
        return Where(f"{self.path}[{index}]", self.go, self.struct)

    def key(self, key: str) -> Where:
        return Where(f"{self.path}.{key}", self.go, self.struct)

    def mismatch(self, value: Any, go_type: str) -> DecodeError:
        into = f"struct field {self.struct}.{self.go}" if self.go else "value"
        return DecodeError(f"json: cannot unmarshal {json_kind(value, go_type)} into Go {into} of type {go_type}")


def json_kind(value: Any, go_type: str) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():
            return f"number {json.dumps(value)}" if go_type.startswith("int") else "number"  # YAML's integers have no bound, orjson's do
        case str():
            return "string"
        case list():
            return "array"
        case None:
            return "null"
        case _:
            return "object"


# What a null among a list's items or a map's values becomes.
_ZERO: dict[str, Any] = {"string": "", "int32": 0, "int64": 0, "bool": False, "float64": 0, "[]uint8": ""}


class Node(Protocol):
    go_type: str
    shape: Shape

    def accepts(self, value: Any) -> bool: ...
    def take(self, value: Any, where: Where, unknown: list[str]) -> Any: ...
    def missing(self, value: Any, path: str, causes: list[Cause]) -> None: ...


class Anything:
    """Raw JSON (RawExtension, FieldsV1, JSON): kept as it came."""

    go_type = "map[string]interface {}"

    def __init__(self, *, only_objects: bool) -> None:
        self._only_objects = only_objects
        self.shape: Shape = "map" if only_objects else "any"

    def accepts(self, value: Any) -> bool:
        return not self._only_objects or type(value) is dict

    def take(self, value: Any, where: Where, unknown: list[str]) -> Any:
        if not self.accepts(value):
            raise where.mismatch(value, self.go_type)
        return value

    def missing(self, value: Any, path: str, causes: list[Cause]) -> None:
        pass


class List:
    shape: Shape = "list"

    def __init__(self, item: Node) -> None:
        self.item = item
        self.go_type = f"[]{item.go_type}"
        self._accepts = item.accepts

    def accepts(self, value: Any) -> bool:
        if type(value) is not list:
            return False
        return all(map(self._accepts, value))

    def take(self, value: Any, where: Where, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise where.mismatch(value, self.go_type)
        return [
            _ZERO.get(self.item.go_type, {}) if item is None else self.item.take(item, where.item(index), unknown)
            for index, item in enumerate(value)
        ]

    def missing(self, value: Any, path: str, causes: list[Cause]) -> None:
        for index, item in enumerate(value):
            self.item.missing(item, f"{path}[{index}]", causes)


class Map:
    shape: Shape = "map"

    def __init__(self, value: Node) -> None:
        self.value = value
        self.go_type = f"map[string]{value.go_type}"
        self._accepts = value.accepts

    def accepts(self, value: Any) -> bool:
        if type(value) is not dict:
            return False
        return all(map(self._accepts, value.values()))

    def take(self, value: Any, where: Where, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise where.mismatch(value, self.go_type)
        return {
            key: _ZERO.get(self.value.go_type, {}) if item is None else self.value.take(item, where.key(key), unknown)
            for key, item in value.items()
        }

    def missing(self, value: Any, path: str, causes: list[Cause]) -> None:
        for key, item in value.items():
            self.value.missing(item, f"{path}[{key}]", causes)


class Struct:
    """A type with named fields, which are added after construction, since types refer to themselves (JSONSchemaProps)."""

    shape: Shape = "struct"

    def __init__(self, name: str, map_type: str = "") -> None:
        package, _, self.go_name = name.rpartition(".")
        self.go_type = f"{package.rpartition('.')[2]}.{self.go_name}"
        self.name = name
        self.map_type = map_type
        self.fields: dict[str, Node] = {}
        self.extensions: dict[str, dict[str, Any]] = {}
        self.written: frozenset[str] = frozenset()
        self.required: tuple[str, ...] = ()
        self._required: frozenset[str] = frozenset()
        self._checks: dict[str, Callable[[Any], bool]] = {}
        self._may_miss: dict[str, Node] | None = None

    def add(self, name: str, node: Node, extensions: dict[str, Any]) -> None:
        self.fields[name] = node
        if extensions:
            self.extensions[name] = extensions

    def seal(self, written: Iterable[str], required: Iterable[str]) -> None:
        """`written` fields are encoded even when empty; `required` ones may not be absent."""
        self.written = frozenset(written)
        self.required = tuple(required)
        self._required = frozenset(self.required)
        self._checks = {
            name: _non_empty(node.accepts) if isinstance(node, List | Map) and name not in self.written else node.accepts
            for name, node in self.fields.items()
        }

    def accepts(self, value: Any) -> bool:
        if type(value) is not dict:
            return False
        checks = self._checks
        for key, item in value.items():
            check = checks.get(key)
            if check is None or not check(item):
                return False
        return True

    def take(self, value: Any, where: Where, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise where.mismatch(value, self.go_type)
        taken: dict[str, Any] = {}
        for key, item in value.items():
            node = self.fields.get(key)
            at = where.field(key, self.go_name)
            if node is None:
                unknown.append(f'unknown field "{at.path}"')
            elif item is not None:
                clean = node.take(item, at, unknown)
                if clean or key in self.written or not isinstance(node, List | Map):
                    taken[key] = clean
        return taken

    def missing(self, value: Any, path: str, causes: list[Cause]) -> None:
        prefix = f"{path}." if path else ""
        if self._required and not value.keys() >= self._required:
            causes.extend(Cause("FieldValueRequired", "Required value", prefix + name) for name in self.required if name not in value)
        if self._may_miss is None:
            self._may_miss = {name: node for name, node in self.fields.items() if _requires(node, set())}
        may_miss = self._may_miss
        for name, item in value.items():
            if item is not None and (node := may_miss.get(name)) is not None:
                node.missing(item, prefix + name, causes)


def _requires(node: Node, seen: set[Node]) -> bool:
    """Whether this type, or one it leads to, has required fields: the others need not be visited."""
    if isinstance(node, List):
        return _requires(node.item, seen)
    if isinstance(node, Map):
        return _requires(node.value, seen)
    if not isinstance(node, Struct) or node in seen:
        return False
    seen.add(node)
    return bool(node.required) or any(_requires(field, seen) for field in node.fields.values())


def _non_empty(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return bool(value) and accepts(value)

    return check
