"""Defaults of a schema, filled into an object in place: where a field is absent, or null and may not be."""

from __future__ import annotations

from typing import Any

from atoll.apiserver.customresources.nodes import Node


def fill_defaults(node: Node, value: Any) -> None:
    """Idempotent. The object is the caller's own; the schema's defaults are never shared with it."""
    if not node.has_defaults:
        return
    if isinstance(value, dict):
        for name, child in node.properties.items():
            if child.has_default and (name not in value or (value[name] is None and not child.nullable)):
                value[name] = child.new_default()
            if child.has_defaults and name in value:
                fill_defaults(child, value[name])
        if isinstance(node.additional, Node):
            _fill_map(node, node.additional, value)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            fill_defaults(node.items, item)


def _fill_map(node: Node, child: Node, value: dict[str, Any]) -> None:
    for name, item in value.items():
        if name in node.properties:
            continue
        if item is None and child.has_default and not child.nullable:
            value[name] = child.new_default()
        fill_defaults(child, value[name])
