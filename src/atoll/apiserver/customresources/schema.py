"""A custom resource's schema behind the seam that kinds have. Nothing is compiled until the first object asks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import orjson

from atoll.apiserver.customresources.cel_rules import RuleRunner
from atoll.apiserver.customresources.defaults import fill_defaults
from atoll.apiserver.customresources.nodes import Node, compile_schema
from atoll.apiserver.customresources.openapi import published
from atoll.apiserver.customresources.prune import clean_metadata, prune
from atoll.apiserver.customresources.rules import CustomRules
from atoll.apiserver.machinery.kind import Cause, GroupVersionKind, ListMeta, Outcome, Shape
from atoll.apiserver.machinery.schema_types import DecodeError
from atoll.apiserver.machinery.schemas import BuiltinSchema

_OWN = ("kind", "apiVersion", "metadata")
_METADATA = BuiltinSchema("", "v1", "ConfigMap")
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class ScalePaths:
    """The fields a scale is read from and written to, as their steps."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.replicas = _steps(raw.get("specReplicasPath"))
        self.current = _steps(raw.get("statusReplicasPath"))
        self.selector = _steps(raw.get("labelSelectorPath"))


def _steps(path: str | None) -> tuple[str, ...]:
    return tuple((path or "").removeprefix(".").split(".")) if path else ()


class CustomSchema:
    """`raw` is one version's openAPIV3Schema; `is_terminating` tells whether the definition is being deleted."""

    def __init__(
        self,
        gvk: GroupVersionKind,
        version: Mapping[str, Any],
        *,
        list_kind: str,
        preserves: bool = False,
        selectable: tuple[str, ...] = (),
        is_terminating: Callable[[], bool] = lambda: False,
    ) -> None:
        self._gvk = gvk
        self._list_kind = list_kind
        self._raw: dict[str, Any] = dict((version.get("schema") or {}).get("openAPIV3Schema") or _ANYTHING)
        self._preserves = preserves
        self.selectable = selectable
        self.is_terminating = is_terminating
        subresources = version.get("subresources") or {}
        self.has_status = subresources.get("status") is not None
        self.scale = ScalePaths(subresources["scale"]) if subresources.get("scale") is not None else None
        self.rules = CustomRules(self)
        self._metas: dict[tuple[str, ...], ListMeta] = {}

    @cached_property
    def root(self) -> Node:
        node = compile_schema(self._raw)
        node.preserves = node.preserves or self._preserves
        for name in ("kind", "apiVersion"):
            node.properties.setdefault(name, Node(type="string"))
        node.properties.setdefault("metadata", Node(type="object"))
        return node

    @cached_property
    def runner(self) -> RuleRunner:
        return RuleRunner(self.root)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(orjson.dumps(self._raw)).hexdigest()

    # --- the seam

    def validate(self, obj: dict[str, Any]) -> Outcome:
        unknown: list[str] = []
        try:
            metadata = clean_metadata(obj["metadata"], unknown)
        except DecodeError as error:
            return Outcome({}, error=str(error))
        fields = {name: value for name, value in obj.items() if name not in _OWN}
        pruned = prune(self.root, fields, "", unknown)
        if pruned is fields and metadata is obj["metadata"]:
            return Outcome(obj)
        own: dict[str, Any] = {name: obj[name] for name in ("kind", "apiVersion") if name in obj}
        return Outcome({**own, "metadata": metadata, **pruned}, unknown=tuple(unknown))

    def restored(self, obj: dict[str, Any]) -> dict[str, Any]:
        pruned = self.validate(obj).object or obj
        if not self.root.has_defaults:
            return pruned
        filled: dict[str, Any] = orjson.loads(orjson.dumps(pruned))
        fill_defaults(self.root, filled)
        return pruned if filled == pruned else filled

    def missing(self, obj: Mapping[str, Any]) -> list[Cause]:
        return []  # told by the rules, with all else that is wrong

    def patch_meta(self, path: tuple[str, ...]) -> ListMeta:
        if path[:1] == ("metadata",):
            return _METADATA.patch_meta(path)
        if path not in self._metas and len(self._metas) < 10_000:
            self._metas[path] = _meta_at(self.root, path)
        return self._metas.get(path) or _meta_at(self.root, path)

    def publish(self, reference: Callable[[str], dict[str, Any]]) -> dict[GroupVersionKind, tuple[str, dict[str, Any]]]:
        return published(self._gvk, self._list_kind, self._raw, reference)


def _meta_at(node: Node | None, path: tuple[str, ...]) -> ListMeta:
    for step in path:
        if node is None:
            return ListMeta()
        node = node.items if node.items is not None else node.child(step)
    if node is None:
        return ListMeta()
    return ListMeta(_shape(node), (), "", node.list_type, node.list_map_keys, node.map_type)


def _shape(node: Node) -> Shape:
    if node.type == "array":
        return "list"
    if node.type == "object":
        return "map" if isinstance(node.additional, Node) else "struct"
    return "scalar" if node.type or node.int_or_string else "any"
