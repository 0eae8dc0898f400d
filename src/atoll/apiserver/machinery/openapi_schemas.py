"""`components.schemas` of an OpenAPI v3 document: the compiled types written out again, with their descriptions.

A document holds the types it refers to and all that these refer to, as upstream's documents do: each stands alone.
"""

from __future__ import annotations

from typing import Any

import orjson

from atoll.apiserver.machinery.kind import GroupVersionKind
from atoll.apiserver.machinery.schema_file import schema_file

_REF = "#/components/schemas/"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
_MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."

_SCALARS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "object": {"type": "object"},
    "any": {},
}
_NAMED_SCALARS = {"quantity": _QUANTITY, "intstr": _INT_OR_STRING, "time": _TIME, "microtime": _MICRO_TIME}
_DEFINITIONS: dict[str, dict[str, Any]] = {
    _QUANTITY: {
        "description": "A fixed-point number with a unit: 250m, 2, 1.5Gi. Units are n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
    _INT_OR_STRING: {
        "description": "An integer, or a string such as a percentage or the name of a port.",
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
    _TIME: {"description": "A moment in RFC 3339, in whole seconds.", "format": "date-time", "type": "string"},
    _MICRO_TIME: {"description": "A moment in RFC 3339, with microseconds.", "format": "date-time", "type": "string"},
}


class SchemaDocument:
    """Collects the types that a document refers to."""

    def __init__(self) -> None:
        self._file = schema_file()
        self._numbers = {name: number for number, name in enumerate(self._file.names)}
        self._components: dict[str, Any] = {}
        self._added: dict[GroupVersionKind, str] = {}
        self._pending: list[int] = []
        self._descriptions = self._file.descriptions()

    def reference(self, name: str) -> dict[str, Any]:
        """{"$ref": ...} to the type of that full name."""
        if name not in self._components:
            self._components[name] = _DEFINITIONS.get(name, {})
            if name not in _DEFINITIONS:
                self._pending.append(self._numbers[name])
        return {"$ref": _REF + name}

    def add(self, types: dict[GroupVersionKind, tuple[str, dict[str, Any]]]) -> None:
        """Types of custom resources, by their kinds, with the names they have in the document."""
        for gvk, (name, schema) in types.items():
            self._added[gvk] = name
            self._components[name] = schema

    def kind(self, gvk: GroupVersionKind) -> dict[str, Any] | None:
        """A reference by group, version and kind; None for a kind without a schema (the options of exec and its like)."""
        if gvk in self._added:
            return {"$ref": _REF + self._added[gvk]}
        number = self._file.kinds.get("/".join(gvk))
        return None if number is None else self.reference(self._file.names[number])

    def components(self) -> dict[str, Any]:
        while self._pending:
            number = self._pending.pop()
            self._components[self._file.names[number]] = self._type(number)
        return dict(sorted(self._components.items()))

    def _type(self, number: int) -> dict[str, Any]:
        raw = self._file.type(number)
        description, texts = orjson.loads(self._descriptions[number])
        schema: dict[str, Any] = {"description": description, "type": "object"}
        if "r" in raw:
            schema["required"] = raw["r"]
        properties: dict[str, Any] = {}
        for name, spec in raw["f"].items():
            text, extensions = spec if isinstance(spec, list) else (spec, {})
            field = self._node(text)
            if "$ref" in field:
                # OpenAPI 3.0 ignores what stands beside a $ref: the description needs the allOf.
                field = {"allOf": [field]}
            if name in texts:
                field["description"] = texts[name]
            field.update({f"x-kubernetes-{key}": value for key, value in extensions.items()})
            properties[name] = field
        if properties:
            schema["properties"] = properties
        schema.update({f"x-kubernetes-{key}": value for key, value in raw.get("x", {}).items()})
        return schema

    def _node(self, text: str) -> dict[str, Any]:
        if text[0] == "@":
            return self.reference(self._file.names[int(text[1:])])
        if text.startswith("[]"):
            return {"type": "array", "items": self._item(text[2:])}
        if text.startswith("{}"):
            return {"type": "object", "additionalProperties": self._item(text[2:])}
        if text in _NAMED_SCALARS:
            return self.reference(_NAMED_SCALARS[text])
        return dict(_SCALARS[text])

    def _item(self, text: str) -> dict[str, Any]:
        node = self._node(text)
        return {"allOf": [node]} if "$ref" in node else node
