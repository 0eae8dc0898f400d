"""What a schema does not know is taken out of an object; what it does know stays, type errors and all.

The value itself comes back when there was nothing to take. Names that go are told by path, for strict validation. Nulls where a field may
not be null and has no default go silently, as upstream.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.customresources.nodes import Node
from atoll.apiserver.machinery.schema_types import DecodeError, Where
from atoll.apiserver.machinery.schemas import BuiltinSchema

_IDENTITY = ("apiVersion", "kind", "metadata")
_METADATA = BuiltinSchema("", "v1", "ConfigMap")


def prune(node: Node, value: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(value, dict):
        return _object(node, value, path, unknown)
    if isinstance(value, list) and node.items is not None:
        items = [prune(node.items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def _object(node: Node, value: dict[str, Any], path: str, unknown: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    same = True
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        if node.embedded and name in _IDENTITY:
            new = _identity(name, item, where, unknown)
            if new is None:
                same = False
                continue
        else:
            child = node.child(name)
            if child is None:
                if not (node.preserves or node.additional is True):
                    unknown.append(f'unknown field "{where}"')
                    same = False
                    continue
                new = item
            elif item is None and not child.nullable and not child.has_default:
                same = False
                continue
            else:
                new = prune(child, item, where, unknown)
        same = same and new is item
        kept[name] = new
    return value if same else kept


def _identity(name: str, item: Any, where: str, unknown: list[str]) -> Any:
    """An embedded resource's own names and metadata: what cannot be read as such goes."""
    if name != "metadata":
        return item if isinstance(item, str) else None
    found: list[str] = []
    try:
        cleaned = clean_metadata(item, found)
    except DecodeError:
        return None
    unknown += [text.replace('"metadata', f'"{where}', 1) for text in found]
    return cleaned


def clean_metadata(metadata: Any, unknown: list[str]) -> Any:
    """ObjectMeta as upstream's types would have it. Raises DecodeError."""
    field = _METADATA.type.fields["metadata"]
    if field.accepts(metadata):
        return metadata
    return field.take(metadata, Where("metadata", "metadata", "ObjectMeta"), unknown)
