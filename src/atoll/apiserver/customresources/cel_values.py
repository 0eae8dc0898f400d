"""Objects as CEL sees them: only what the schema knows, names made identifiers, numbers in their declared type."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

from atoll.apiserver.customresources.nodes import Node

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
        "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
IDENTITY = ("apiVersion", "kind", "metadata")
_METADATA = ("name", "generateName")


def escaped(name: str) -> str | None:
    """The identifier by which a rule reads a field; None for a field that no rule can name."""
    if name in _RESERVED:
        return f"__{name}__"
    for mark, word in _ESCAPES:
        name = name.replace(mark, word)
    return name if _IDENTIFIER.fullmatch(name) else None


def to_cel(node: Node, value: Any, *, root: bool = False) -> Any:
    if isinstance(value, dict):
        return _object(node, value, root=root)
    if isinstance(value, list):
        return [to_cel(node.items, item) for item in value] if node.items is not None else []
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if node.type == "integer" and isinstance(value, float):
        return int(value)
    if node.type == "string" and node.limits.format == "byte" and isinstance(value, str):
        return b64decode(value, validate=True)
    return value


def _object(node: Node, value: dict[str, Any], *, root: bool) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, item in value.items():
        if (root or node.embedded) and name in IDENTITY:
            known = {key: item[key] for key in _METADATA if key in item} if isinstance(item, dict) else item
            seen[name] = known
        elif name in node.properties:
            key = escaped(name)
            if key is not None:
                seen[key] = to_cel(node.properties[name], item)
        elif isinstance(node.additional, Node):
            seen[name] = to_cel(node.additional, item)
    return seen
