"""A definition's schema as OpenAPI publishes it: with the fields every object has, and its list type beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atoll.apiserver.machinery.kind import GroupVersionKind

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_REF = "#/components/schemas/"
_API_VERSION = "The version of the group in which the object is written."
_KIND = "What the object is, in CamelCase."


def published(
    gvk: GroupVersionKind, list_kind: str, raw: dict[str, Any], reference: Callable[[str], dict[str, Any]]
) -> dict[GroupVersionKind, tuple[str, dict[str, Any]]]:
    """Name and schema for the kind and for its list."""
    prefix = ".".join((*reversed(gvk.group.split(".")), gvk.version))
    name, list_gvk = f"{prefix}.{gvk.kind}", gvk._replace(kind=list_kind)
    own = {
        "apiVersion": {"type": "string", "description": _API_VERSION},
        "kind": {"type": "string", "description": _KIND},
        "metadata": {"allOf": [reference(META + "ObjectMeta")], "description": "Standard object's metadata."},
    }
    schema = {**raw, "type": "object", "properties": {**(raw.get("properties") or {}), **own}, **_marked(gvk)}
    listing = {
        "type": "object",
        "description": f"{list_kind} is a list of {gvk.kind}",
        "required": ["items"],
        "properties": {
            **own,
            "metadata": {"allOf": [reference(META + "ListMeta")], "description": "Standard list metadata."},
            "items": {"type": "array", "items": {"$ref": _REF + name}, "description": f"List of {gvk.kind} objects."},
        },
        **_marked(list_gvk),
    }
    return {gvk: (name, schema), list_gvk: (f"{prefix}.{list_kind}", listing)}


def _marked(gvk: GroupVersionKind) -> dict[str, Any]:
    return {"x-kubernetes-group-version-kind": [gvk._asdict()]}
