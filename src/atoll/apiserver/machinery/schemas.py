"""Validation of built-in objects against the types compiled into `schemas.bin`, and what patches must know of a field.

`BuiltinSchema.validate` first runs the quick check of the type, which touches each field once and builds no paths. Only an object that
fails it is walked again, slowly, to say where and why in the words of upstream's decoder and to build the cleaned copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from atoll.apiserver.machinery.kind import Cause, GroupVersionKind, ListMeta, Outcome
from atoll.apiserver.machinery.schema_file import SchemaFile, schema_file
from atoll.apiserver.machinery.schema_scalars import SCALARS
from atoll.apiserver.machinery.schema_types import DecodeError, List, Map, Node, Struct, Where

# Fields the published schema calls required because Go always writes them, but whose zero value the real server takes.
_ZERO_IS_FINE = frozenset(
    {
        ("ControllerRevision", "revision"),
        ("CSINodeSpec", "drivers"),
        ("CustomResourceDefinitionVersion", "served"),
        ("CustomResourceDefinitionVersion", "storage"),
        ("DeploymentSpec", "template"),
        ("DaemonSetSpec", "template"),
        ("StatefulSetSpec", "template"),
        ("JobSpec", "template"),
        ("CronJobSpec", "jobTemplate"),
        ("Event", "eventTime"),
        ("Event", "metadata"),
        ("HTTPHeader", "value"),
        ("ISCSIPersistentVolumeSource", "lun"),
        ("ISCSIVolumeSource", "lun"),
        ("LimitRangeSpec", "limits"),
        ("ResourcePool", "generation"),
        ("Sysctl", "value"),
        ("TokenReviewSpec", "token"),
    }
)


class BuiltinSchema:
    """A handle by group, version and kind; the type behind it is read and compiled when it is first used."""

    __slots__ = ("_gvk", "_type")

    def __init__(self, group: str, version: str, kind: str) -> None:
        self._gvk = (group, version, kind)
        self._type: Struct | None = None

    @property
    def type(self) -> Struct:
        if self._type is None:
            self._type = _types().struct(schema_file().number(*self._gvk))
        return self._type

    def validate(self, obj: dict[str, Any]) -> Outcome:
        struct = self.type
        unknown: list[str] = []
        try:
            if struct.accepts(obj):
                return Outcome(obj)
            return Outcome(struct.take(obj, Where("", "", ""), unknown), unknown=tuple(unknown))
        except DecodeError as error:
            return Outcome({}, error=str(error))
        except RecursionError:  # only a schema inside a custom resource definition can be so deep
            return Outcome({}, error="exceeded max depth")

    def missing(self, obj: Mapping[str, Any]) -> list[Cause]:
        causes: list[Cause] = []
        self.type.missing({key: value for key, value in obj.items() if key not in ("metadata", "status")}, "", causes)
        return causes

    def patch_meta(self, path: tuple[str, ...]) -> ListMeta:
        return _patch_meta(self.type, path)

    def restored(self, obj: dict[str, Any]) -> dict[str, Any]:
        return obj

    def publish(self, reference: Callable[[str], dict[str, Any]]) -> dict[GroupVersionKind, tuple[str, dict[str, Any]]]:
        return {}


class _Types:
    """The compiled types by their numbers. They are shared (every PodSpec is the same object), and may refer to themselves."""

    def __init__(self, file: SchemaFile) -> None:
        self._file = file
        self._compiled: dict[int, Struct] = {}

    def struct(self, number: int) -> Struct:
        if number in self._compiled:
            return self._compiled[number]
        raw = self._file.type(number)
        struct = self._compiled[number] = Struct(self._file.names[number], raw.get("x", {}).get("map-type", ""))
        for name, spec in raw["f"].items():
            text, extensions = spec if isinstance(spec, list) else (spec, {})
            struct.add(name, self._node(text), extensions)
        written = raw.get("r", ())
        struct.seal(written, [name for name in written if (struct.go_name, name) not in _ZERO_IS_FINE])
        return struct

    def _node(self, text: str) -> Node:
        if text[0] == "@":
            return self.struct(int(text[1:]))
        if text.startswith("[]"):
            return List(self._node(text[2:]))
        if text.startswith("{}"):
            return Map(self._node(text[2:]))
        return SCALARS[text]


@cache
def _types() -> _Types:
    return _Types(schema_file())


@lru_cache(maxsize=8192)
def _patch_meta(root: Struct, path: tuple[str, ...]) -> ListMeta:
    node: Node | None = root
    extensions: dict[str, Any] = {}
    for step in path:
        extensions = {}
        if isinstance(node, Struct):
            extensions = node.extensions.get(step, {})
            node = node.fields.get(step)
        elif isinstance(node, Map):
            node = node.value
        elif isinstance(node, List):
            node = node.item
        else:
            node = None
        if node is None:
            return ListMeta()
    assert node
    own = node.map_type if isinstance(node, Struct) else ""
    return ListMeta(
        node.shape,
        tuple(filter(None, extensions.get("patch-strategy", "").split(","))),
        extensions.get("patch-merge-key", ""),
        extensions.get("list-type", ""),
        tuple(extensions.get("list-map-keys", ())),
        extensions.get("map-type", own),
    )
