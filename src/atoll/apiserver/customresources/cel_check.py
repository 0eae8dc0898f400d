"""Whether the rules of a definition compile, name fields that exist, and cannot cost too much: asked before the definition is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.apiserver.customresources.cel import CelError
from atoll.apiserver.customresources.cel_cost import DEFINITION_MAX, REQUEST_MAX, RULE_MAX, Estimate, over_budget, size_of
from atoll.apiserver.customresources.cel_rules import Program
from atoll.apiserver.customresources.nodes import Node, Rule, compile_schema
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.machinery.kind import Cause

RULES_MAX = 1_000  # of one schema: each is compiled when a definition is written
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")


@dataclass(slots=True)
class _Total:
    cost: int = 0
    rules: int = 0


def check_rules(raw: dict[str, Any], path: str, causes: Causes) -> None:
    """`raw` is a structural schema."""
    total = _Total()
    root = compile_schema(raw)
    if root.has_rules:
        _walk(root, path, causes, total, 1, root)
    if total.cost > DEFINITION_MAX:
        causes.forbidden(
            path, over_budget("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema", *_limit(total))
        )


def _limit(total: _Total) -> tuple[int, int]:
    return total.cost, DEFINITION_MAX


def _walk(node: Node, path: str, causes: Causes, total: _Total, times: int, root: Node) -> None:
    """`times` is how often the place can occur in one object."""
    if not node.has_rules:
        return
    for index, rule in enumerate(node.rules):
        total.rules += 1
        if total.rules > RULES_MAX:
            causes.forbidden(f"{path}.x-kubernetes-validations", f"a schema may have at most {RULES_MAX} rules")
            return
        _rule(rule, node, f"{path}.x-kubernetes-validations[{index}]", causes, total, times, root)
    for name, child in node.properties.items():
        _walk(child, f"{path}.properties[{name}]", causes, total, times, root)
    if node.items is not None:
        _walk(node.items, f"{path}.items", causes, total, _often(times, node), root)
    if isinstance(node.additional, Node):
        _walk(node.additional, f"{path}.additionalProperties", causes, total, _often(times, node), root)


def _often(times: int, node: Node) -> int:
    return min(times * size_of(node), REQUEST_MAX)


def _rule(rule: Rule, node: Node, path: str, causes: Causes, total: _Total, times: int, root: Node) -> None:
    if not rule.text.strip():
        causes.required(f"{path}.rule", "rule is not specified")
        return
    if rule.message and not rule.message.strip():
        causes.invalid(f"{path}.message", rule.message, "message must be non-empty if specified")
    if "\n" in rule.message.strip():
        causes.invalid(f"{path}.message", rule.message, "message must not contain line breaks")
    if "\n" in rule.text.strip() and not rule.message.strip() and not rule.message_expression:
        causes.required(f"{path}.message", "message must be specified if rule contains line breaks")
    if rule.reason and rule.reason not in _REASONS:
        causes.unsupported(f"{path}.reason", rule.reason, _REASONS)
    if rule.field_path and not _leads_somewhere(rule.field_path, node):
        causes.invalid(f"{path}.fieldPath", rule.field_path, "fieldPath must be a valid path")
    try:
        program = Program(rule, node, root=node is root)
        _measured(program.estimate, rule.text, f"{path}.rule", causes, total, times, "estimated rule cost")
    except CelError as error:
        causes.invalid(f"{path}.rule", rule.text, f"compilation failed: {error}")
        return
    try:
        message = program.measure_message()
        if message is not None:
            told = "estimated messageExpression cost"
            _measured(message, rule.message_expression, f"{path}.messageExpression", causes, total, times, told)
    except CelError as error:
        causes.invalid(f"{path}.messageExpression", rule.message_expression, f"messageExpression compilation failed: {error}")


def _measured(found: Estimate, text: str, path: str, causes: Causes, total: _Total, times: int, what: str) -> None:
    for position, wrong in found.undefined[:1]:
        causes.append(
            Cause("FieldValueInvalid", f"Invalid value: {_quoted(text)}: compilation failed: {_shown(text, position, wrong)}", path)
        )
    cost = found.cost * times
    total.cost += cost
    if cost > RULE_MAX:
        causes.forbidden(path, over_budget(what, cost, RULE_MAX))


def _quoted(text: str) -> str:
    from atoll.apiserver.kinds.causes import shown

    return shown(text)


def _shown(text: str, position: int, wrong: str) -> str:
    """As CEL's compiler shows a place in a text."""
    before = text[:position]
    line, column = before.count("\n"), position - (before.rfind("\n") + 1)
    source = [*text.split("\n"), ""][line] if line <= text.count("\n") else ""
    return f"ERROR: <input>:{line + 1}:{column + 1}: {wrong}\n | {source}\n | {'.' * column}^"


def _leads_somewhere(path: str, node: Node) -> bool:
    if not path.startswith((".", "[")):
        return False
    place: Node | None = node
    for step in path.replace("['", ".").replace("']", "").split(".")[1:]:
        place = place.child(step) if place is not None else None
        if place is None:
            return False
    return True
