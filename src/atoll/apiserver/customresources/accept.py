"""Rules of a CustomResourceDefinition's versions, beyond what its own type says: schemas, columns, subresources, selectable fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.customresources.cel_check import check_rules
from atoll.apiserver.customresources.structure import check_structure, typed_schema
from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.machinery.table_custom import evaluate
from atoll.errors import InvalidInput

SELECTABLE_MAX = 8
COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
_COLUMN_FORMATS = ("int32", "int64", "float", "double", "byte", "date", "date-time", "password")

Raw = Mapping[str, Any]


def check_versions(spec: Raw, causes: Causes) -> None:
    versions = spec.get("versions") or ()
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    # One schema for all versions is told of once, in the place it had before versions had their own, as upstream does.
    alike = len(versions) > 0 and all(schema == schemas[0] for schema in schemas)
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name") or ""
        causes.each(f"{path}.name", name, names.label_1035(name))
        if name in seen:
            causes.invalid(f"{path}.name", name, "must be unique")
        seen.add(name)
        if version.get("deprecationWarning") and not version.get("deprecated"):
            causes.invalid(f"{path}.deprecationWarning", version["deprecationWarning"], "can only be set for deprecated versions")
        schema = schemas[index]
        if schema is None:
            causes.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
        elif not alike or not index:
            check_schema(schema, "spec.validation.openAPIV3Schema" if alike else f"{path}.schema.openAPIV3Schema", causes)
        _columns(version.get("additionalPrinterColumns") or (), f"{path}.additionalPrinterColumns", causes)
        _subresources(version.get("subresources") or {}, f"{path}.subresources", causes)
        _selectable(version, path, causes)


def check_schema(raw: dict[str, Any], path: str, causes: Causes) -> None:
    found = Causes()
    cleaned = typed_schema(raw, path, found)
    if not found:
        check_structure(cleaned, path, found)
    if not found:
        check_rules(cleaned, path, found)
    causes.extend(dict.fromkeys(found))


def _columns(columns: Any, path: str, causes: Causes) -> None:
    for index, column in enumerate(columns):
        where = f"{path}[{index}]"
        if not column.get("name"):
            causes.required(f"{where}.name")
        causes.one_of(f"{where}.type", column.get("type"), COLUMN_TYPES)
        if column.get("format"):
            causes.one_of(f"{where}.format", column["format"], _COLUMN_FORMATS)
        if not column.get("jsonPath"):
            causes.required(f"{where}.jsonPath")
        else:
            _json_path(column["jsonPath"], f"{where}.jsonPath", causes)


def _json_path(path: str, where: str, causes: Causes) -> None:
    if path[:1] not in (".", "{", "["):
        causes.invalid(where, path, "must be a simple json path starting with .")
        return
    try:
        evaluate(path, {})
    except InvalidInput as error:
        causes.invalid(where, path, str(error))


def _subresources(raw: Raw, path: str, causes: Causes) -> None:
    scale = raw.get("scale")
    if scale is None:
        return
    for field, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(field)
        if not value:
            causes.required(f"{path}.scale.{field}")
        elif not value.startswith(root) or not _is_plain(value):
            causes.invalid(f"{path}.scale.{field}", value, f"should be a json path under {root[:-1]}")
    selector = scale.get("labelSelectorPath")
    if selector and not (selector.startswith((".spec.", ".status.")) and _is_plain(selector)):
        causes.invalid(f"{path}.scale.labelSelectorPath", selector, "should be a json path under either .spec or .status")


def _is_plain(path: str) -> bool:
    """Fields joined by dots; no list, no filter."""
    return all(step and not set(step) & set("[]{}()*'\" ") for step in path.removeprefix(".").split("."))


def _selectable(version: Raw, path: str, causes: Causes) -> None:
    fields = version.get("selectableFields") or ()
    if len(fields) > SELECTABLE_MAX:
        causes.too_many(f"{path}.selectableFields", len(fields), SELECTABLE_MAX)
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    seen: set[str] = set()
    for index, field in enumerate(fields):
        where, value = f"{path}.selectableFields[{index}].jsonPath", field.get("jsonPath") or ""
        if not value:
            causes.required(where)
            continue
        if not value.startswith(".") or not _is_plain(value):
            causes.invalid(where, value, "is an invalid path: must be a simple json path")
            continue
        if value.startswith(".metadata"):
            causes.invalid(where, value, "must not point to fields in metadata")
        if value in seen:
            causes.duplicate(where, value)
        seen.add(value)
        kind = _type_at(schema, value)
        if kind is None:
            causes.invalid(where, value, "is an invalid path: does not refer to a valid field")
        elif kind not in ("string", "boolean", "integer"):
            causes.invalid(
                where,
                value,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            )


def _type_at(schema: Any, path: str) -> str | None:
    for step in path.removeprefix(".").split("."):
        properties = schema.get("properties") if isinstance(schema, dict) else None
        schema = properties.get(step) if isinstance(properties, dict) else None
    return schema.get("type", "") if isinstance(schema, dict) else None
