"""Whether a policy's expressions fit the types of the resources it names: warnings in its status, which refuse nothing.

To the compiler objects are dynamic. So each path from `object` or `oldObject` that the schema knows to end at a value of one type is put
to it as a variable of that type, under a name of the same length, so that the places in its messages stay right; and a path that the schema
does not know is told of here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from atoll.apiserver.admission.policies.language import DYNAMIC
from atoll.apiserver.admission.policies.source import Token, bind_variables, tokens
from atoll.apiserver.customresources.cel import CelError, Expression, environment, library
from atoll.apiserver.customresources.nodes import Node
from atoll.apiserver.customresources.schema import CustomSchema
from atoll.apiserver.machinery.kind import Kind, KindRegistry
from atoll.apiserver.machinery.schema_types import List, Map, Struct
from atoll.apiserver.machinery.schemas import BuiltinSchema

KINDS_MAX = 10  # of one policy, as upstream
_GO_TYPES = {"string": "STRING", "bool": "BOOL", "int32": "INT", "int64": "INT", "float64": "DOUBLE"}
_CEL_TYPES = {"string": "STRING", "boolean": "BOOL", "integer": "INT", "number": "DOUBLE"}


class Undefined(CelError):
    """A path that the schema does not know."""


def warnings(registry: KindRegistry, policy: Mapping[str, Any]) -> list[dict[str, str]]:
    """`status.typeChecking.expressionWarnings` of a policy; none where it names its resources with wildcards."""
    spec = policy.get("spec") or {}
    kinds = list(_kinds(registry, spec))
    if not kinds:
        return []
    variables = {each["name"]: each["expression"] for each in spec.get("variables") or ()}
    found = []
    for field, text in _expressions(spec):
        told = [f"{_shown(kind)}: {error}\n" for kind in kinds if (error := _checked(kind, bind_variables(text, variables)))]
        if told:
            found.append({"fieldRef": field, "warning": "".join(told)})
    return found


def _expressions(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for index, rule in enumerate(spec.get("validations") or ()):
        yield f"spec.validations[{index}].expression", rule["expression"]
        if rule.get("messageExpression"):
            yield f"spec.validations[{index}].messageExpression", rule["messageExpression"]
    for index, note in enumerate(spec.get("auditAnnotations") or ()):
        yield f"spec.auditAnnotations[{index}].valueExpression", note["valueExpression"]


def _kinds(registry: KindRegistry, spec: Mapping[str, Any]) -> list[Kind]:
    found: dict[tuple[str, str, str], Kind] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        for group in rule.get("apiGroups") or ():
            for version in rule.get("apiVersions") or ():
                for resource in rule.get("resources") or ():
                    kind = registry.get(group, version, resource)
                    if kind is not None and len(found) < KINDS_MAX:
                        found[group, version, resource] = kind
    return list(found.values())


def _shown(kind: Kind) -> str:
    return f"{kind.api_version if kind.group else '/' + kind.version}, Kind={kind.kind}"


def _checked(kind: Kind, text: str) -> str:
    """What the compiler says of an expression on objects of the kind; "" when nothing."""
    types = library().Type
    declared = dict.fromkeys((*DYNAMIC, "authorizer"), types.DYN)
    names: dict[str, str] = {}
    try:
        source = _typed(kind, text, declared, names)
        Expression(source, {}, environment(declared))
    except CelError as error:
        told = str(error)
        for name, path in names.items():
            told = told.replace(name, path)
        return "" if _is_of_access(told) else told
    return ""


def _is_of_access(told: str) -> bool:
    """The functions of `authorizer` are not declared here."""
    return "undeclared reference to" in told


def _typed(kind: Kind, text: str, declared: dict[str, Any], names: dict[str, str]) -> str:
    found = tokens(text)
    position = 0
    starts = []
    for token in found:
        starts.append(position)
        position += len(token.text)
    out, index = [], 0
    while index < len(found):
        if found[index].text in ("object", "oldObject") and not (index and found[index - 1].text == "."):
            end, path = _path(found, index)
            is_tested = index > 1 and found[index - 1].text == "(" and found[index - 2].text == "has"
            made = _type_of(kind, path, text, starts[index])
            if made is not None and not is_tested and len(path) > 1:
                written = "".join(token.text for token in found[index:end])
                name = written.replace(".", "_")
                declared[name] = made
                names[name] = written
                out.append(name)
                index = end
                continue
        out.append(found[index].text)
        index += 1
    return "".join(out)


def _path(found: list[Token], index: int) -> tuple[int, list[str]]:
    """Where a chain of plain selections ends, and its names."""
    path, at = [found[index].text], index + 1
    while at + 1 < len(found) and found[at].text == "." and found[at + 1].kind == "name":
        if at + 2 < len(found) and found[at + 2].text == "(":  # a call of the value before
            break
        path.append(found[at + 1].text)
        at += 2
    return at, path


def _type_of(kind: Kind, path: list[str], text: str, position: int) -> Any:
    """The one type of the values at a path, None where there is none or it is not known. Raises Undefined."""
    schema: Any = kind.schema
    node: Any = schema.type if isinstance(schema, BuiltinSchema) else schema.root if isinstance(schema, CustomSchema) else None
    for number, name in enumerate(path[1:]):
        if isinstance(node, Node) and number == 0 and name in ("kind", "apiVersion", "metadata"):
            return None
        child = _child(node, name)
        if child is None:
            if not _is_closed(node):
                return None
            raise Undefined(_pointed(text, position + sum(len(each) + 1 for each in path[: number + 1]) - 1, f"undefined field '{name}'"))
        node = child
    return _scalar(node)


def _child(node: Any, name: str) -> Any:
    if isinstance(node, Struct):
        return node.fields.get(name)
    if isinstance(node, Map):
        return node.value
    return node.child(name) if isinstance(node, Node) else None


def _is_closed(node: Any) -> bool:
    if isinstance(node, Node):
        return node.type == "object" and not node.preserves and node.additional is None
    return isinstance(node, Struct)


def _scalar(node: Any) -> Any:
    types = library().Type
    if isinstance(node, Node):
        if node.nullable or node.int_or_string:
            return None
        if node.type == "array":
            return types.List(_scalar(node.items) or types.DYN)
        return getattr(types, _CEL_TYPES[node.type]) if node.type in _CEL_TYPES and not node.limits.format else None
    if isinstance(node, List):
        return types.List(_scalar(node.item) or types.DYN)
    name = _GO_TYPES.get(getattr(node, "go_type", ""))
    return getattr(types, name) if name else None


def _pointed(text: str, position: int, wrong: str) -> str:
    """As CEL's compiler shows a place in a text."""
    before = text[:position]
    line, column = before.count("\n"), position - (before.rfind("\n") + 1)
    return f"ERROR: <input>:{line + 1}:{column + 1}: {wrong}\n | {text.split(chr(10))[line]}\n | {'.' * column}^"
