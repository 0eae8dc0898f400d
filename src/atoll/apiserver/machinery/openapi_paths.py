"""`paths` of an OpenAPI v3 document: the operations of one kind, each with its verb and its group, version and kind.

kubectl looks an operation up by x-kubernetes-group-version-kind and asks whether its patch takes `fieldValidation` and `dryRun`.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.machinery.kind import GroupVersionKind, Kind
from atoll.apiserver.machinery.openapi_schemas import META, SchemaDocument

_JSON = "application/json"
_BODIES = (_JSON, "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def _query(name: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": True}}


_PRETTY = _query("pretty", "If 'true', then the output is pretty printed.")
_DRY_RUN = _query("dryRun", "When All, the request runs through every stage but is not stored.")
_FIELD_MANAGER = _query("fieldManager", "The name of the actor that makes these changes, of at most 128 printable characters.")
_FIELD_VALIDATION = _query("fieldValidation", "What to do with unknown and duplicate fields: Ignore, Warn or Strict.")
_FORCE = _query("force", "Take over fields that other managers own; only for apply.", "boolean")
_WRITE = (_DRY_RUN, _FIELD_MANAGER, _FIELD_VALIDATION)
_DELETE = (
    _DRY_RUN,
    _query("gracePeriodSeconds", "Seconds before the object is deleted; 0 means now.", "integer"),
    _query("propagationPolicy", "What becomes of dependents: Orphan, Background or Foreground."),
)
_LIST = (
    _query("allowWatchBookmarks", "Send events of type BOOKMARK.", "boolean"),
    _query("continue", "Where the last page ended."),
    _query("fieldSelector", "Only objects whose fields are so."),
    _query("labelSelector", "Only objects whose labels are so."),
    _query("limit", "At most so many objects in a page.", "integer"),
    _query("resourceVersion", "From which version on."),
    _query("resourceVersionMatch", "How resourceVersion is meant: Exact or NotOlderThan."),
    _query("sendInitialEvents", "Begin a watch with the present objects.", "boolean"),
    _query("timeoutSeconds", "How long a list or watch may take.", "integer"),
    _query("watch", "Stream changes instead of listing.", "boolean"),
)


def paths_of(base: str, kind: Kind, schemas: SchemaDocument) -> dict[str, Any]:
    """`base` is "api/v1" or "apis/apps/v1". The types used are noted in `schemas`."""
    scope = "namespaces/{namespace}/" if kind.namespaced else ""
    collection = f"/{base}/{scope}{kind.plural}"
    operations = _Operations(kind.gvk, schemas, kind.builtin)
    paths: dict[str, Any] = {
        collection: operations.of(kind.verbs, {"list": "get", "create": "post", "deletecollection": "delete"}),
        f"{collection}/{{name}}": operations.of(kind.verbs, {"get": "get", "update": "put", "patch": "patch", "delete": "delete"}),
    }
    if kind.namespaced:
        paths[f"/{base}/{kind.plural}"] = operations.of(kind.verbs, {"list": "get"})
    for sub in kind.subresources:
        methods = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
        paths[f"{collection}/{{name}}/{sub.name}"] = _Operations(sub.gvk, schemas, kind.builtin).of(sub.verbs, methods)
    return {path: _with_path_parameters(path, item) for path, item in paths.items() if item}


def _with_path_parameters(path: str, item: dict[str, Any]) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}
        for name in ("name", "namespace")
        if f"{{{name}}}" in path
    ]
    return {**item, "parameters": [*named, _PRETTY]}


class _Operations:
    """The operations whose body is one type."""

    def __init__(self, gvk: GroupVersionKind, schemas: SchemaDocument, builtin: bool) -> None:
        self._gvk = gvk
        self._patches = _PATCHES if builtin else tuple(name for name in _PATCHES if "strategic" not in name)  # kubectl chooses by this
        self._schemas = schemas
        self._body = schemas.kind(gvk) or {"type": "object"}

    def of(self, verbs: tuple[str, ...], methods: dict[str, str]) -> dict[str, Any]:
        return {method: self._operation(verb) for verb, method in methods.items() if verb in verbs}

    def _operation(self, verb: str) -> dict[str, Any]:
        answer = self._body
        if verb == "list":
            answer = self._schemas.kind(self._gvk._replace(kind=f"{self._gvk.kind}List")) or answer
        elif verb in ("delete", "deletecollection"):
            answer = self._schemas.reference(META + "Status")
        operation: dict[str, Any] = {
            "parameters": list(_PARAMETERS.get(verb, ())),
            "responses": {"200": _content("OK", answer, _BODIES), "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": {"create": "post", "update": "put"}.get(verb, verb),
            "x-kubernetes-group-version-kind": self._gvk._asdict(),
        }
        if verb in ("create", "update"):
            operation["requestBody"] = {"required": True, **_content("", self._body, ("*/*",))}
        elif verb == "patch":
            operation["requestBody"] = {"required": True, **_content("", self._schemas.reference(META + "Patch"), self._patches)}
        elif verb in ("delete", "deletecollection"):
            operation["requestBody"] = _content("", self._schemas.reference(META + "DeleteOptions"), ("*/*",))
        return operation


_PARAMETERS = {
    "create": _WRITE,
    "update": _WRITE,
    "patch": (*_WRITE, _FORCE),
    "delete": _DELETE,
    "deletecollection": (*_DELETE, *_LIST),
    "list": _LIST,
}


def _content(description: str, schema: dict[str, Any], media: tuple[str, ...]) -> dict[str, Any]:
    content = {"content": {name: {"schema": schema} for name in media}}
    return {"description": description, **content} if description else content
