"""OpenAPI v2 (Swagger): every type and operation in one document, in JSON or as protobuf.

kubectl reads it where it validates by itself: for a `kind: List`, and in releases before OpenAPI v3. What is published as v3 is rewritten,
so that both say the same: v2 has no `oneOf`, no `nullable`, names its types under `definitions` and its bodies as parameters. What v2
cannot say of a custom resource is left open, never said more narrowly: a client that believed it would refuse what the server takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.openapi_paths import paths_of
from atoll.apiserver.machinery.openapi_schemas import SchemaDocument

PROTOBUF_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # Go's parser of media types takes no @
_V3, _V2 = "#/components/schemas/", "#/definitions/"
_UNSAID = frozenset({"oneOf", "anyOf", "allOf", "not", "nullable", "x-kubernetes-validations"})
_SHAPE = frozenset({"type", "format", "items", "properties", "additionalProperties", "required", "enum", "default"})
_UNIONS = {  # types that v3 gives as a choice
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
}


def swagger(kinds: Iterable[Kind], version: str) -> dict[str, Any]:
    """The document; `version` is that of the API."""
    schemas = SchemaDocument()
    served = list(kinds)
    for kind in served:
        schemas.add(kind.schema.publish(schemas.reference))
    paths: dict[str, Any] = {}
    for kind in served:
        base = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
        for path, item in paths_of(base, kind, schemas).items():
            paths[path] = {name: _parameters(value) if name == "parameters" else _operation(value) for name, value in item.items()}
    definitions = {name: _UNIONS.get(name) or _schema(schema) for name, schema in schemas.components().items()}
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths, "definitions": definitions}


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    rewritten = {name: value for name, value in operation.items() if name.startswith("x-")}
    parameters = _parameters(operation["parameters"])
    body = operation.get("requestBody")
    if body is not None:
        rewritten["consumes"] = list(body["content"])
        parameters.insert(0, {"name": "body", "in": "body", "required": body.get("required", False), "schema": _content(body)})
    rewritten["responses"] = {code: _answer(answer) for code, answer in operation["responses"].items()}
    rewritten["produces"] = sorted({media for answer in operation["responses"].values() for media in answer.get("content", ())})
    return {**rewritten, "parameters": parameters}


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    described = {"description": answer["description"]}
    return {**described, "schema": _content(answer)} if "content" in answer else described


def _content(body: dict[str, Any]) -> dict[str, Any]:
    return _schema(next(iter(body["content"].values()))["schema"])


def _parameters(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**{name: value for name, value in each.items() if name != "schema"}, **each["schema"]} for each in parameters]


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": _V2 + schema["$ref"].removeprefix(_V3)}
    rewritten = {name: value for name, value in schema.items() if name not in _UNSAID}
    only: list[dict[str, Any]] = schema.get("allOf") or []
    if len(only) == 1 and "$ref" in only[0]:
        rewritten["$ref"] = _V2 + only[0]["$ref"].removeprefix(_V3)
    if schema.get("nullable") or schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
        kept = {"type": "object"} if schema.get("type") == "object" and not schema.get("nullable") else {}
        return {**{name: value for name, value in rewritten.items() if name not in _SHAPE}, **kept}
    if isinstance(rewritten.get("items"), dict):
        rewritten["items"] = _schema(rewritten["items"])
    if isinstance(rewritten.get("additionalProperties"), dict):
        rewritten["additionalProperties"] = _schema(rewritten["additionalProperties"])
    if "properties" in rewritten:
        rewritten["properties"] = {name: _schema(each) for name, each in rewritten["properties"].items()}
    return rewritten
