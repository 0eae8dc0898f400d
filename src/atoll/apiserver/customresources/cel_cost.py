"""What a rule may cost on the largest object its schema lets through, and whether it names only fields that are there.

One walk over the checked expression, with the schema's node in hand wherever it is known. Costs and limits are those of upstream's estimate
(cel-go's checker cost over apiserver's sizes): one a step, a tenth of its length for each string looked through, and the number of items
times the body for each comprehension. Where a list, map or string has no bound of its own, the bound is what fits in a request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from atoll.apiserver.customresources.cel_syntax import Checked, Expr
from atoll.apiserver.customresources.cel_values import IDENTITY, escaped
from atoll.apiserver.customresources.nodes import Node

REQUEST_MAX = 3 * 1024 * 1024  # bytes of a request's body
RULE_MAX = 10_000_000
DEFINITION_MAX = 100_000_000
_STRING_FACTOR = 0.1  # of a step for each character looked at
_LIST_COST, _MAP_COST = 10, 30
_INFINITY = 1 << 62
_SCANS = frozenset({"contains", "startsWith", "endsWith", "matches", "find", "findAll", "split", "replace", "lowerAscii", "upperAscii"})
_SCANS_LISTS = frozenset({"isSorted", "sum", "min", "max", "join"})
_COMPARES_LISTS = frozenset({"sets.contains", "sets.equivalent", "sets.intersects"})
_EQUALS = frozenset({"_==_", "_!=_", "_<_", "_>_", "_<=_", "_>=_"})
_MOMENTS = frozenset({"date", "date-time", "datetime", "duration"})
_READS_MOMENT = frozenset({"timestamp", "duration", "string", "type", "_==_", "_!=_", "size"})


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a value: its size at most (items, entries or characters), and the node it came from."""

    size: int = 1
    node: Node | None = None
    root: bool = False


@dataclass(slots=True)
class Estimate:
    cost: int
    undefined: list[tuple[int, str]]  # position and what is wrong there
    names: set[str]  # free variables


def estimate(checked: Checked, variables: dict[str, Known]) -> Estimate:
    walk = _Walk(checked, variables)
    cost, _ = walk.visit(checked.root)
    return Estimate(min(int(cost), _INFINITY), walk.undefined, walk.names)


class _Walk:
    def __init__(self, checked: Checked, variables: dict[str, Known]) -> None:
        self._positions = checked.positions
        self._scope: dict[str, Known] = dict(variables)
        self._free = frozenset(variables)
        self.names: set[str] = set()
        self.undefined: list[tuple[int, str]] = []

    def visit(self, expr: Expr) -> tuple[float, Known]:
        match expr.sort:
            case "const":
                value = expr.constant
                return 0, Known(len(value[1]) if value and isinstance(value[1], bytes) else 1)
            case "ident":
                if expr.name in self._free:
                    self.names.add(expr.name)
                return 1, self._scope.get(expr.name, Known())
            case "select":
                return self._select(expr)
            case "call":
                return self._call(expr)
            case "comprehension":
                return self._comprehension(expr)
        parts = [self.visit(part) for part in expr.parts]
        base = _LIST_COST if expr.sort == "list" else _MAP_COST
        node = parts[0][1].node if expr.sort == "list" and parts else None
        made = Node(type="array", items=node) if node is not None else None
        return base + sum(cost for cost, _ in parts), Known(len(expr.parts), made)

    def _select(self, expr: Expr) -> tuple[float, Known]:
        cost, known = self.visit(expr.parts[0])
        return cost + 1, self._member(expr, known, expr.name)

    def _member(self, expr: Expr, known: Known, name: str) -> Known:
        node = known.node
        if node is None or (node.type not in ("object", "") and not node.items):
            return Known()
        if (known.root or node.embedded) and name in IDENTITY:
            return Known(253, _IDENTITY_NODES[name])
        for field, child in node.properties.items():
            if escaped(field) == name:
                return Known(size_of(child), child)
        if isinstance(node.additional, Node):
            return Known(size_of(node.additional), node.additional)
        if node.type == "object":
            self._complain(expr, f"undefined field '{name}'")
        return Known()

    def _complain(self, expr: Expr, what: str) -> None:
        self.undefined.append((self._positions.get(expr.id, 0), what))

    def _call(self, expr: Expr) -> tuple[float, Known]:
        parts = [self.visit(part) for part in expr.parts]
        cost = 1 + sum(part for part, _ in parts)
        knowns = [known for _, known in parts]
        if expr.name not in _READS_MOMENT:
            self._moments(expr, knowns)
        match expr.name:
            case "_&&_" | "_||_" | "!_" | "@not_strictly_false":
                return cost, Known()
            case "_?_:_":
                return cost, replace(knowns[1], size=max(knowns[1].size, knowns[2].size))
            case "_[_]" | "_[?_]":
                return cost, self._indexed(knowns[0])
            case "_?._":
                name = expr.parts[1].constant
                return cost, self._member(expr, knowns[0], name[1].decode() if name else "")
            case "orValue" | "value" | "optional.of" | "optional.ofNonZeroValue" | "dyn":
                return cost, knowns[0]
            case "_+_":
                size = min(sum(known.size for known in knowns), _INFINITY)
                return cost + size * _STRING_FACTOR * _is_text(knowns[0]), Known(size, knowns[0].node)
        if expr.name in _EQUALS:
            return cost + min(known.size for known in knowns) * _STRING_FACTOR, Known()
        if expr.name in _SCANS:
            pattern = knowns[1].size * 0.25 if expr.name == "matches" else 1
            return cost + knowns[0].size * _STRING_FACTOR * max(1, pattern), knowns[0]
        if expr.name == "@in":
            return cost + knowns[1].size, Known()
        if expr.name in _SCANS_LISTS:
            return cost + knowns[0].size, Known()
        if expr.name in _COMPARES_LISTS:
            return cost + min(knowns[0].size * knowns[1].size, _INFINITY), Known()
        return cost, Known(knowns[0].size if knowns and expr.has_target else 1)

    def _moments(self, expr: Expr, knowns: list[Known]) -> None:
        """Times and durations are text here, where upstream has them converted: what would differ is refused with the way to write it."""
        for known in knowns:
            if known.node is not None and known.node.type == "string" and known.node.limits.format in _MOMENTS:
                make = "duration" if known.node.limits.format == "duration" else "timestamp"
                self._complain(expr, f"a field of format {known.node.limits.format} must be wrapped in {make}(...) here")

    def _indexed(self, known: Known) -> Known:
        child = known.node and (known.node.items or (known.node.additional if isinstance(known.node.additional, Node) else None))
        return Known(size_of(child), child) if child else Known()

    def _comprehension(self, expr: Expr) -> tuple[float, Known]:
        over, initial, condition, step, result = expr.parts
        over_cost, known = self.visit(over)
        initial_cost, accumulated = self.visit(initial)
        node = known.node
        accumulator, first, second = expr.variables
        item = self._indexed(known)
        is_map = node is not None and node.items is None and node.type == "object"
        key = Known(256) if is_map else Known()
        outer = dict(self._scope)
        self._scope[accumulator] = accumulated
        self._scope[first] = key if second or is_map else item
        if second:
            self._scope[second] = item
        each = self.visit(condition)[0] + self.visit(step)[0]
        if over.sort != "list" or over.parts:
            # A list that is built item by item has as many items as what it is built from. (Nothing is iterated to bind a variable.)
            self._scope[accumulator] = Known(known.size, node if node is not None and node.items else None)
        result_cost, made = self.visit(result)
        self._scope = outer
        return over_cost + initial_cost + min(known.size * each, _INFINITY) + result_cost, made


_TEXT = Node(type="string")
_IDENTITY_NODES = {
    "apiVersion": _TEXT,
    "kind": _TEXT,
    "metadata": Node(type="object", properties={"name": _TEXT, "generateName": _TEXT}),
}


def _is_text(known: Known) -> bool:
    return known.node is None or known.node.type in ("string", "")


def size_of(node: Node) -> int:
    """The most items, entries or characters a value of the node can have."""
    limits = node.limits
    if node.type == "array":
        if limits.max_items is not None:
            return limits.max_items
        return REQUEST_MAX // (_least_bytes(node.items) + 1) if node.items else 1
    if node.type == "object":
        if limits.max_properties is not None:
            return limits.max_properties
        if isinstance(node.additional, Node):
            return REQUEST_MAX // (_least_bytes(node.additional) + 4)
        return len(node.properties) or 1
    if node.type == "string" or node.int_or_string:
        if limits.max_length is not None:
            return limits.max_length
        if limits.enum_shown:
            return max(map(len, limits.enum_shown))
        return {"date": 10, "date-time": 28, "duration": 32, "uuid": 36, "ipv4": 15, "ipv6": 39}.get(limits.format, REQUEST_MAX - 2)
    return 1


def _least_bytes(node: Node) -> int:
    """The shortest JSON a value of the node can be."""
    if node.type == "object":
        children = [node.properties[name] for name in node.limits.required if name in node.properties]
        return 2 + sum(_least_bytes(child) + 5 for child in children)
    return {"string": 2, "array": 2, "boolean": 4}.get(node.type, 1)


def over_budget(what: str, cost: int, limit: int) -> str:
    """In upstream's words, by how much."""
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:.6f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where "
        "arrays, maps, and strings are declared)"
    )
