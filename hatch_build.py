"""Build hook: compiles the Kubernetes schemas into `src/atoll/apiserver/machinery/schemas.bin`.

The package `kubernetes-validate` (a build requirement; it unpacks to 110 MB, which users never install) carries the field types,
descriptions and x-kubernetes-* extensions of the Kubernetes API as JSON schemas. This hook keeps the types of the generally available API
and writes them as a file that loads in a few milliseconds:

    the magic line, three lengths of four bytes (big endian), then three compressed blocks:
    index         zlib; JSON {"version", "names": [type name], "kinds": {"group/version/Kind": number of its type}}
    types         zlib; one line of JSON a type: {"f": {field: node or [node, extensions]}, "r": [required], "x": {extensions}}
    descriptions  lzma; one line of JSON a type: [description of the type, {field: description}]

A node is a string: a scalar's name ("string", "int32", "quantity" ...), "@12" for the type of that number, "[]" or "{}" before the node of
a list's items or a map's values. Only `kubectl explain` needs the descriptions, so they are a block of their own.
"""

from __future__ import annotations

import importlib.util
import json
import lzma
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KUBERNETES = "1.36.0"
MAGIC = b"ATOLLSCHEMA1\n"
OUTPUT = "src/atoll/apiserver/machinery/schemas.bin"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_APIEXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
# Types with a decoder of their own upstream: they are leaves to us.
_SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intstr",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "object",
    _META + "FieldsV1": "object",
    _META + "MicroTime": "microtime",
    _META + "Time": "time",
    _APIEXTENSIONS + "JSON": "any",
    _APIEXTENSIONS + "JSONSchemaPropsOrArray": "any",
    _APIEXTENSIONS + "JSONSchemaPropsOrBool": "any",
    _APIEXTENSIONS + "JSONSchemaPropsOrStringArray": "any",
}
_FORMATS = {"byte": "bytes", "date-time": "time", "int32": "int32", "int64": "int64", "double": "double"}
_TYPES = {"string": "string", "boolean": "bool", "integer": "int64", "number": "double"}
_EXTENSION = "x-kubernetes-"
_PREFIX = "#/$defs/"


class SchemaBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        output = Path(self.root) / OUTPUT
        source = _definitions()
        if source:
            output.write_bytes(compile_schemas(json.loads(source.read_bytes())["$defs"]))
        elif not output.exists():
            raise RuntimeError(
                f"cannot compile {OUTPUT}: the package kubernetes-validate with the schemas of Kubernetes {KUBERNETES} is not installed. "
                "It is a build requirement: build with isolation (the default of pip and build), or run: "
                'pip install "kubernetes-validate>=1.36,<1.38"'
            )


def _definitions() -> Path | None:
    spec = importlib.util.find_spec("kubernetes_validate")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "kubernetes-json-schema" / f"v{KUBERNETES}-local" / "_definitions.json"
        if path.exists():
            return path
    return None


def compile_schemas(definitions: dict[str, Any]) -> bytes:
    names = sorted(_served(definitions))
    numbers = {name: number for number, name in enumerate(names)}
    kinds: dict[str, int] = {}
    types, descriptions = [], []
    for name in names:
        definition = definitions[name]
        gvks = definition.get("x-kubernetes-group-version-kind", ())
        for gvk in gvks:
            # The types of options (DeleteOptions, WatchEvent) name every group that accepts them; they are looked up by name.
            if len(gvks) == 1:
                kinds[f"{gvk['group']}/{gvk['version']}/{gvk['kind']}"] = numbers[name]
        types.append(_type(definition, numbers))
        properties = definition.get("properties", {})
        texts = {field: schema["description"] for field, schema in properties.items() if "description" in schema}
        descriptions.append([definition.get("description", ""), texts])
    index = _json({"version": KUBERNETES, "names": names, "kinds": kinds})
    blocks = [
        zlib.compress(index, 9),
        zlib.compress(b"\n".join(map(_json, types)), 9),
        lzma.compress(b"\n".join(map(_json, descriptions)), preset=9 | lzma.PRESET_EXTREME),
    ]
    return MAGIC + struct.pack(">3I", *map(len, blocks)) + b"".join(blocks)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _served(definitions: dict[str, Any]) -> set[str]:
    """The stable types and all they refer to."""
    pending = [name for name in definitions if "alpha" not in name.split(".")[-2] and "beta" not in name.split(".")[-2]]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in found and name not in _SCALARS:
            found.add(name)
            pending.extend(_references(definitions[name]))
    return found


def _references(schema: Any) -> Iterator[str]:
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key == "$ref" and isinstance(value, str):
            yield value.removeprefix(_PREFIX)
        elif isinstance(value, dict):
            yield from _references(value)


def _type(definition: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    fields = {name: _field(schema, numbers) for name, schema in definition.get("properties", {}).items()}
    compiled: dict[str, Any] = {"f": fields}
    if "required" in definition:
        compiled["r"] = definition["required"]
    if extensions := _extensions(definition):
        compiled["x"] = extensions
    return compiled


def _field(schema: dict[str, Any], numbers: dict[str, int]) -> str | list[Any]:
    node = _node(schema, numbers)
    extensions = _extensions(schema)
    return [node, extensions] if extensions else node


def _node(schema: dict[str, Any], numbers: dict[str, int]) -> str:
    reference = schema.get("$ref", "").removeprefix(_PREFIX)
    if reference:
        return _SCALARS.get(reference) or f"@{numbers[reference]}"
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        # Nullable here means only that Go's decoder takes null for absent, which holds for every field.
        kind = kind[0]
    if kind == "array":
        return "[]" + _node(schema["items"], numbers)
    if kind == "object":
        return "{}" + _node(schema["additionalProperties"], numbers) if "additionalProperties" in schema else "object"
    return _FORMATS.get(schema.get("format", "")) or _TYPES.get(kind, "any")


def _extensions(schema: dict[str, Any]) -> dict[str, Any]:
    """By their names without the common beginning: list-type, patch-merge-key, group-version-kind and so on."""
    return {key.removeprefix(_EXTENSION): value for key, value in schema.items() if key.startswith(_EXTENSION)}
