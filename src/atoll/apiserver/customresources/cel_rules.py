"""The rules of a schema (x-kubernetes-validations): compiled with the types of their place, and run over objects.

A rule with `oldSelf` is a transition rule: it runs when there is an old value to compare with, matched as in `check`. Others run where the
value has changed. Each place's rules are compiled at first use and kept with the schema.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.customresources.cel import CelError, Expression, cel_type, library
from atoll.apiserver.customresources.cel_cost import Estimate, Known, estimate, size_of
from atoll.apiserver.customresources.cel_syntax import read_checked
from atoll.apiserver.customresources.cel_values import to_cel
from atoll.apiserver.customresources.check import ABSENT, CAUSES_MAX, items_by_key, key_of, kind_of
from atoll.apiserver.customresources.nodes import Node, Rule, canonical
from atoll.apiserver.kinds.causes import Causes, shown
from atoll.apiserver.machinery.kind import Cause

_MESSAGE_MAX = 5 * 1024  # of a message made by messageExpression
_REASONS = {
    "": "FieldValueInvalid",
    "FieldValueInvalid": "FieldValueInvalid",
    "FieldValueForbidden": "FieldValueForbidden",
    "FieldValueRequired": "FieldValueRequired",
    "FieldValueDuplicate": "FieldValueDuplicate",
}


class Program:
    """One rule, compiled. Raises CelError."""

    __slots__ = ("_estimate", "_message", "_test", "node", "root", "rule")

    def __init__(self, rule: Rule, node: Node, *, root: bool) -> None:
        self.rule, self.node, self.root = rule, node, root
        self._estimate: Estimate | None = None
        self._test = self._compile(rule.text)
        if self._test.returns not in ("BOOL", "DYN"):
            raise CelError("cel expression must evaluate to a bool")
        self._message: Expression | None = None

    def _compile(self, text: str) -> Expression:
        """`oldSelf` as an optional is bound around the rule: no value that is optional can be passed in."""
        kind = cel_type(self.node)
        if not self.rule.optional_old_self:
            return Expression(text, {"self": kind, "oldSelf": kind})
        types = library().Type
        variables = {"self": kind, "old__": types.DYN, "hasOld__": types.BOOL}
        return Expression(f"cel.bind(oldSelf, hasOld__ ? optional.of(old__) : optional.none(), {text}\n)", variables)

    @property
    def estimate(self) -> Estimate:
        if self._estimate is None:
            self._estimate = self._measure(self._test)
        return self._estimate

    def _measure(self, expression: Expression) -> Estimate:
        place = Known(size_of(self.node), self.node, self.root)
        return estimate(read_checked(expression.serialized()), {"self": place, "oldSelf": place, "old__": place, "hasOld__": Known()})

    @property
    def message(self) -> Expression | None:
        """The compiled messageExpression. Raises CelError."""
        if self._message is None and self.rule.message_expression:
            self._message = self._compile(self.rule.message_expression)
            if self._message.returns not in ("STRING", "DYN"):
                raise CelError("messageExpression must evaluate to a string")
        return self._message

    def measure_message(self) -> Estimate | None:
        return self._measure(self.message) if self.message is not None else None

    @property
    def is_transition(self) -> bool:
        return bool(self.estimate.names & {"oldSelf", "old__", "hasOld__"})

    def run(self, value: Any, old: Any) -> str | None:
        """What to say when the value breaks the rule; None when it does not. `value` and `old` are as CEL sees them."""
        values = self._values(value, old)
        try:
            if self._test.evaluate(values) is True:
                return None
        except CelError as error:
            return f"{error} evaluating rule: {self._plain_message()}"
        return self._made_message(values) or self._plain_message()

    def _values(self, value: Any, old: Any) -> dict[str, Any]:
        if self.rule.optional_old_self:
            return {"self": value, "old__": None if old is ABSENT else old, "hasOld__": old is not ABSENT}
        return {"self": value, "oldSelf": value if old is ABSENT else old}

    def _made_message(self, values: dict[str, Any]) -> str:
        """What messageExpression says; nothing when it fails or is not one line of text, as upstream."""
        try:
            made = self.message.evaluate(values) if self.message is not None else ""
        except CelError:
            return ""
        told = made.strip() if isinstance(made, str) else ""
        return "" if "\n" in told or len(told) > _MESSAGE_MAX else told

    def _plain_message(self) -> str:
        return self.rule.message.strip() or f"failed rule: {' '.join(self.rule.text.split())}"


class RuleRunner:
    """Runs all rules of a schema over objects."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._programs: dict[int, tuple[Program, ...]] = {}

    def programs(self, node: Node) -> tuple[Program, ...]:
        found = self._programs.get(id(node))
        if found is None:
            found = tuple(Program(rule, node, root=node is self._root) for rule in node.rules)
            self._programs[id(node)] = found
        return found

    def run(self, value: Any, causes: Causes, old: Any = ABSENT) -> None:
        if self._root.has_rules:
            self._walk(self._root, value, "", causes, old)

    def _walk(self, node: Node, value: Any, path: str, causes: Causes, old: Any) -> None:
        if not node.has_rules or len(causes) >= CAUSES_MAX or (value is None and node.nullable):
            return
        if node.rules:
            self._test(node, value, path, causes, old)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, item in value.items():
                child = node.child(name)
                if child is not None:
                    self._walk(child, item, _joined(node, path, name), causes, before.get(name, ABSENT))
        elif isinstance(value, list) and node.items is not None:
            keyed = items_by_key(node, old)
            for index, item in enumerate(value):
                self._walk(node.items, item, f"{path}[{index}]", causes, keyed.get(key_of(node, item), ABSENT) if keyed else ABSENT)

    def _test(self, node: Node, value: Any, path: str, causes: Causes, old: Any) -> None:
        is_root = node is self._root
        same = old is not ABSENT and old == value and canonical(old) == canonical(value)
        seen = seen_before = ABSENT
        for program in self.programs(node):
            if program.is_transition:
                if old is ABSENT and not program.rule.optional_old_self:
                    continue
            elif same:
                continue
            if seen is ABSENT:
                seen = to_cel(node, value, root=is_root)
                seen_before = ABSENT if old is ABSENT else to_cel(node, old, root=is_root)
            told = program.run(seen, seen_before)
            if told is not None:
                causes.append(_cause(program.rule, told, path, value))


def _joined(node: Node, path: str, name: str) -> str:
    if name not in node.properties:
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


def _cause(rule: Rule, told: str, path: str, value: Any) -> Cause:
    where = f"{path}{rule.field_path}".removeprefix(".") or "<nil>"
    reason = _REASONS.get(rule.reason, "FieldValueInvalid")
    match reason:
        case "FieldValueForbidden":
            message = f"Forbidden: {told}"
        case "FieldValueRequired":
            message = f"Required value: {told}"
        case "FieldValueDuplicate":
            message = f'Duplicate value: "{kind_of(value)}"'
        case _:
            message = f"Invalid value: {shown(kind_of(value) if isinstance(value, dict | list) else value)}: {told}"
    return Cause(reason, message, where)
