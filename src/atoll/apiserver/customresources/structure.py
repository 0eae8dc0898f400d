"""Whether a definition's schema is structural: every field has one type, told outside of the value validations, and nothing is in it that
could not be checked quickly. The words are upstream's (apiextensions, apiserver/schema and apis/apiextensions/validation).
"""

from __future__ import annotations

from typing import Any, Literal

from atoll.apiserver.customresources.check import check
from atoll.apiserver.customresources.nodes import compile_schema
from atoll.apiserver.customresources.patterns import Pattern
from atoll.apiserver.customresources.prune import prune
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.machinery.schema_types import DecodeError, Where
from atoll.apiserver.machinery.schemas import BuiltinSchema

Raw = dict[str, Any]
Level = Literal["root", "item", "field"]

TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id", "$schema")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_REQUIRED_TYPE: dict[Level, str] = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
# What may stand only outside of allOf, anyOf, oneOf and not, and how its absence is called.
_OUTSIDE_ONLY = {
    "type": "empty",
    "additionalProperties": "undefined",
    "default": "undefined",
    "title": "empty",
    "description": "empty",
    "nullable": "false",
    "externalDocs": "undefined",
    "x-kubernetes-preserve-unknown-fields": "false",
    "x-kubernetes-embedded-resource": "false",
    "x-kubernetes-int-or-string": "false",
    "x-kubernetes-list-map-keys": "empty",
    "x-kubernetes-list-type": "undefined",
    "x-kubernetes-map-type": "undefined",
    "x-kubernetes-validations": "empty",
}
_DEFINITION = BuiltinSchema("apiextensions.k8s.io", "v1", "CustomResourceDefinition")


def typed_schema(raw: Any, path: str, causes: Causes) -> Raw:
    """The schema with what the definition's own type leaves open (items, additionalProperties) checked and cleaned like the rest."""
    versions = _DEFINITION.type.fields["spec"].fields["versions"]  # type: ignore[attr-defined]
    props = versions.item.fields["schema"].fields["openAPIV3Schema"]
    return _typed(raw, path, causes, props)


def _typed(raw: Any, path: str, causes: Causes, props: Any) -> Raw:
    if not props.accepts(raw):
        try:
            raw = props.take(raw, Where(path, path, "JSONSchemaProps"), [])
        except DecodeError as error:
            causes.invalid(path, "", str(error))
            return {}
    cleaned: Raw = dict(raw)
    for name in ("items", "additionalProperties", "not"):
        if isinstance(raw.get(name), dict):
            cleaned[name] = _typed(raw[name], f"{path}.{name}", causes, props)
    for name in ("allOf", "anyOf", "oneOf"):
        if raw.get(name):
            cleaned[name] = [_typed(each, f"{path}.{name}[{index}]", causes, props) for index, each in enumerate(raw[name])]
    for name in ("properties", "definitions", "patternProperties"):
        if raw.get(name):
            cleaned[name] = {key: _typed(each, f"{path}.{name}[{key}]", causes, props) for key, each in raw[name].items()}
    return cleaned


def check_structure(raw: Raw, path: str, causes: Causes) -> None:
    """`raw` has passed `typed_schema`."""
    _invariants(raw, "root", path, causes)
    _complete(raw, raw, path, causes)
    if not causes:
        _defaults(raw, path, causes)


def _invariants(raw: Raw, level: Level, path: str, causes: Causes) -> None:
    _plain(raw, path, causes)
    items, kind = raw.get("items"), raw.get("type", "")
    if kind == "array" and items is None:
        causes.required(f"{path}.items", "must be specified")
    if isinstance(items, dict):
        _invariants(items, "item", f"{path}.items", causes)
    elif items is not None:
        causes.forbidden(f"{path}.items", "items must be a schema object and not an array")
    for name, child in (raw.get("properties") or {}).items():
        _invariants(child, "field", f"{path}.properties[{name}]", causes)
    additional = raw.get("additionalProperties")
    if additional is not None:
        if level == "root":
            causes.forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if additional is False:
            causes.forbidden(f"{path}.additionalProperties", "cannot be set to false")
        if raw.get("properties"):
            causes.forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        if isinstance(additional, dict):
            _invariants(additional, "field", f"{path}.additionalProperties", causes)
    _extensions(raw, path, causes)
    _lists(raw, path, causes)
    _nested_of(raw, path, causes, outer=raw)
    _types(raw, level, path, causes)


def _plain(raw: Raw, path: str, causes: Causes) -> None:
    """What is refused wherever it stands."""
    for name in _UNSUPPORTED:
        if raw.get(name) is not None:
            causes.forbidden(f"{path}.{name}", f"{name} is not supported")
    if raw.get("uniqueItems"):
        causes.forbidden(f"{path}.uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic")
    if raw.get("pattern"):
        problem = Pattern(raw["pattern"]).problem()
        if problem:
            causes.invalid(f"{path}.pattern", raw["pattern"], f"must be a valid regular expression, but isn't: {problem}")
    kind = raw.get("type")
    if kind is not None and kind not in TYPES and kind:
        causes.unsupported(f"{path}.type", kind, TYPES)
    if kind == "null":
        causes.forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if raw.get("multipleOf") is not None and raw["multipleOf"] <= 0:
        causes.invalid(f"{path}.multipleOf", raw["multipleOf"], "must be greater than 0")


def _types(raw: Raw, level: Level, path: str, causes: Causes) -> None:
    kind, embedded = raw.get("type", ""), bool(raw.get("x-kubernetes-embedded-resource"))
    keeps = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
    if embedded and kind != "object":
        told = "must be object if x-kubernetes-embedded-resource is true"
        if kind:
            causes.invalid(f"{path}.type", kind, told)
        else:
            causes.required(f"{path}.type", told)
    elif not kind and not raw.get("x-kubernetes-int-or-string") and not keeps:
        causes.required(f"{path}.type", _REQUIRED_TYPE[level])
    elif level == "root" and kind and kind != "object":
        causes.invalid(f"{path}.type", kind, "must be object at the root")
    if embedded:
        if raw.get("additionalProperties") is not None:
            causes.forbidden(f"{path}.additionalProperties", "must not be used if x-kubernetes-embedded-resource is set")
        if not keeps and not raw.get("properties"):
            causes.required(
                f"{path}.properties",
                "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            )
    if level == "root" or embedded:
        _identity(raw.get("properties") or {}, level, path, causes)


def _identity(properties: Raw, level: Level, path: str, causes: Causes) -> None:
    for name in ("kind", "apiVersion"):
        if name in properties and properties[name].get("type") != "string":
            causes.invalid(f"{path}.properties[{name}].type", properties[name].get("type", ""), "must be string")
    metadata = properties.get("metadata")
    if metadata is None:
        return
    where = f"{path}.properties[metadata]"
    if metadata.get("type") != "object":
        causes.invalid(f"{where}.type", metadata.get("type", ""), "must be object")
    told = set(metadata.get("properties") or {}) - {"name", "generateName"}
    if level == "root" and (told or set(metadata) - {"type", "properties", "description", "title"}):
        causes.forbidden(where, "must not specify anything other than name and generateName, but metadata is implicitly specified")


def _extensions(raw: Raw, path: str, causes: Causes) -> None:
    if raw.get("x-kubernetes-int-or-string"):
        if raw.get("type"):
            causes.forbidden(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true")
        for name in ("preserve-unknown-fields", "embedded-resource"):
            if raw.get(f"x-kubernetes-{name}"):
                causes.invalid(f"{path}.x-kubernetes-{name}", True, "must be false if x-kubernetes-int-or-string is true")
    if raw.get("x-kubernetes-preserve-unknown-fields") is False:
        causes.invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    map_type = raw.get("x-kubernetes-map-type")
    if map_type is not None:
        if map_type not in ("granular", "atomic"):
            causes.unsupported(f"{path}.x-kubernetes-map-type", map_type, ("granular", "atomic"))
        if raw.get("type") != "object":
            causes.invalid(f"{path}.type", raw.get("type", ""), "must be object if x-kubernetes-map-type is specified")


def _lists(raw: Raw, path: str, causes: Causes) -> None:
    kind, keys = raw.get("x-kubernetes-list-type"), raw.get("x-kubernetes-list-map-keys") or []
    if kind is not None:
        if kind not in ("atomic", "set", "map"):
            causes.unsupported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "set", "map"))
        if raw.get("type") != "array":
            causes.invalid(f"{path}.type", raw.get("type", ""), "must be array if x-kubernetes-list-type is specified")
    items = raw.get("items") if isinstance(raw.get("items"), dict) else {}
    if keys and kind != "map":
        causes.invalid(f"{path}.x-kubernetes-list-type", kind, "must be map if x-kubernetes-list-map-keys is non-empty")
    if kind == "set" and items:
        _set_items(items, f"{path}.items", causes)
    if kind != "map":
        return
    if not keys:
        causes.required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    properties = (items or {}).get("properties") or {}
    if items and items.get("type") != "object":
        causes.invalid(f"{path}.items.type", items.get("type", ""), "must be object if parent array's x-kubernetes-list-type is map")
    for index, key in enumerate(keys):
        where = f"{path}.x-kubernetes-list-map-keys[{index}]"
        if key in keys[:index]:
            causes.duplicate(where, key)
        if key not in properties:
            causes.invalid(where, key, "entries must all be names of item properties")
            continue
        if properties[key].get("type") in ("array", "object"):
            told = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            causes.invalid(f"{path}.items.properties[{key}].type", properties[key]["type"], told)
        if key not in (items or {}).get("required", ()) and properties[key].get("default") is None:
            told = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            causes.required(f"{path}.items.properties[{key}].default", told)


def _set_items(items: Raw, path: str, causes: Causes) -> None:
    if items.get("nullable"):
        causes.forbidden(f"{path}.nullable", "cannot be nullable when x-kubernetes-list-type is set")
    kind = items.get("type")
    if kind == "object" and items.get("x-kubernetes-map-type") != "atomic":
        told = "must be atomic as item of a list with x-kubernetes-list-type=set"
        causes.invalid(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-map-type"), told)
    elif kind == "array" and items.get("x-kubernetes-list-type") not in (None, "atomic"):
        told = "must be atomic as item of a list with x-kubernetes-list-type=set"
        causes.invalid(f"{path}.x-kubernetes-list-type", items["x-kubernetes-list-type"], told)


def _junctors(raw: Raw, path: str) -> list[tuple[Raw, str]]:
    found = [(each, f"{path}.{name}[{index}]") for name in ("allOf", "anyOf", "oneOf") for index, each in enumerate(raw.get(name) or ())]
    if raw.get("not") is not None:
        found.append((raw["not"], f"{path}.not"))
    return found


def _nested_of(raw: Raw, path: str, causes: Causes, outer: Raw) -> None:
    """The subschemas that only validate. The pattern by which integer-or-string is written may name types."""
    for nested, where in _junctors(raw, path):
        either = raw.get("anyOf") == _INT_OR_STRING and f"{path}.anyOf" in where
        if not (outer.get("x-kubernetes-int-or-string") and either):
            _nested(nested, where, causes, outer)


def _nested(raw: Raw, path: str, causes: Causes, outer: Raw) -> None:
    _plain(raw, path, causes)
    for name, word in _OUTSIDE_ONLY.items():
        if raw.get(name) not in (None, "", False, []):
            causes.forbidden(f"{path}.{name}", f"must be {word} to be structural")
    if "metadata" in (raw.get("properties") or {}):
        causes.forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")
    _nested_of(raw, path, causes, outer)
    for name, child in (raw.get("properties") or {}).items():
        _nested(child, f"{path}.properties[{name}]", causes, {})
    if isinstance(raw.get("items"), dict):
        _nested(raw["items"], f"{path}.items", causes, {})


def _complete(raw: Raw, outer: Raw, path: str, causes: Causes) -> None:
    """Whatever a validating subschema speaks of must be told outside of it too."""
    for nested, where in _junctors(raw, path):
        _told(nested, outer, where, path, causes)
    for name, child in (raw.get("properties") or {}).items():
        _complete(child, child, f"{path}.properties[{name}]", causes)
    for name in ("items", "additionalProperties"):
        if isinstance(raw.get(name), dict):
            _complete(raw[name], raw[name], f"{path}.{name}", causes)


def _told(nested: Raw, outer: Raw, path: str, outer_path: str, causes: Causes) -> None:
    for inner, where in _junctors(nested, path):
        _told(inner, outer, where, outer_path, causes)
    known = outer.get("properties") or {}
    for name, child in (nested.get("properties") or {}).items():
        if name in known:
            _told(child, known[name], f"{path}.properties[{name}]", f"{outer_path}.properties[{name}]", causes)
        else:
            causes.required(f"{outer_path}.properties[{name}]", f"because it is defined in {path}.properties[{name}]")
    if isinstance(nested.get("items"), dict):
        if isinstance(outer.get("items"), dict):
            _told(nested["items"], outer["items"], f"{path}.items", f"{outer_path}.items", causes)
        else:
            causes.required(f"{outer_path}.items", f"because it is defined in {path}.items")


def _defaults(raw: Raw, path: str, causes: Causes) -> None:
    """Defaults must themselves be right by the schema they stand in."""
    if raw.get("default") is not None:
        node, unknown = compile_schema(raw), list[str]()
        if prune(node, raw["default"], "", unknown) is not raw["default"]:
            causes.invalid(f"{path}.default", raw["default"], "must not have unknown fields")
        else:
            check(node, raw["default"], f"{path}.default", causes)
    for name, child in (raw.get("properties") or {}).items():
        _defaults(child, f"{path}.properties[{name}]", causes)
    for name in ("items", "additionalProperties"):
        if isinstance(raw.get(name), dict):
            _defaults(raw[name], f"{path}.{name}", causes)
