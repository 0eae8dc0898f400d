"""The kinds a CustomResourceDefinition asks for: one for each version served, all stored under the one version marked for storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from atoll.apiserver.customresources.schema import CustomSchema
from atoll.apiserver.machinery.kind import Column, Converter, GroupVersionKind, Kind, Subresource

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_CHANGE = ("get", "patch", "update")
_SCALE = GroupVersionKind("autoscaling", "v1", "Scale")
_AGE = (Column("Age", "date", path=".metadata.creationTimestamp"),)


def kinds_of(
    definition: Mapping[str, Any], is_terminating: Callable[[], bool], converter: Converter | None = None
) -> tuple[Kind, tuple[Kind, ...]]:
    """The kind objects are stored as, and the kinds that are served (that one among them, if its version is)."""
    spec = definition["spec"]
    stored_version = next(version["name"] for version in spec["versions"] if version.get("storage"))
    made = {
        version["name"]: _kind(definition, version, stored_version, is_terminating, converter)
        for version in spec["versions"]
        if version.get("served") or version.get("storage")
    }
    served = tuple(made[version["name"]] for version in spec["versions"] if version.get("served"))
    return made[stored_version], served


def _kind(
    definition: Mapping[str, Any],
    version: Mapping[str, Any],
    stored_version: str,
    is_terminating: Callable[[], bool],
    converter: Converter | None,
) -> Kind:
    spec = definition["spec"]
    names, group, name = spec["names"], spec["group"], version["name"]
    gvk = GroupVersionKind(group, name, names["kind"])
    list_kind = names.get("listKind") or f"{names['kind']}List"
    schema = CustomSchema(
        gvk,
        version,
        list_kind=list_kind,
        preserves=bool(spec.get("preserveUnknownFields")),
        selectable=tuple(field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ()),
        is_terminating=is_terminating,
    )
    subresources = []
    if schema.scale is not None:
        subresources.append(Subresource("scale", _SCALE, _CHANGE))
    if schema.has_status:
        subresources.append(Subresource("status", gvk, _CHANGE))
    return Kind(
        group=group,
        version=name,
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        schema=schema,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(subresources),
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=list_kind,
        columns=tuple(_column(column) for column in version.get("additionalPrinterColumns") or ()) or _AGE,
        storage_group_version="" if name == stored_version else f"{group}/{stored_version}",
        builtin=False,
        deprecation=_deprecation(gvk, version),
        digest=schema.digest,
        converter=converter,
    )


def _column(raw: Mapping[str, Any]) -> Column:
    return Column(
        raw["name"], raw.get("type", "string"), raw.get("format", ""), raw.get("description", ""), raw.get("priority", 0), raw["jsonPath"]
    )


def _deprecation(gvk: GroupVersionKind, version: Mapping[str, Any]) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{gvk.api_version} {gvk.kind} is deprecated"
