from __future__ import annotations

from typing import Any

import orjson

from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.openapi import OpenApi

REGISTRY = KindRegistry.builtin()


def document(path: str) -> dict[str, Any]:
    found = OpenApi(REGISTRY).document(path)
    assert found
    loaded: dict[str, Any] = orjson.loads(found.body)
    return loaded


def test_the_index_names_every_group_version_with_the_hash_of_its_document() -> None:
    api = OpenApi(REGISTRY)
    paths = orjson.loads(api.index().body)["paths"]
    assert len(paths) == 22
    found = api.document("apis/apps/v1")
    assert found
    assert paths["apis/apps/v1"] == {"serverRelativeURL": f"/openapi/v3/apis/apps/v1?hash={found.etag}"}
    assert api.document("apis/apps/v9") is None


def test_a_document_is_built_once_and_forgotten_when_its_kinds_change() -> None:
    registry = KindRegistry.builtin()
    api = OpenApi(registry)
    first, index = api.document("apis/apps/v1"), api.index()
    assert api.document("apis/apps/v1") is first
    registry.remove("apps", "v1", "deployments")
    api.forget("apps", "v1")
    second = api.document("apis/apps/v1")
    assert first
    assert second
    assert second.etag != first.etag
    assert api.index().etag != index.etag


def test_every_kind_that_can_be_patched_says_what_kubectl_looks_for() -> None:
    for group, versions in REGISTRY.groups().items():
        for version, kinds in versions.items():
            paths = document(f"apis/{group}/{version}" if group else f"api/{version}")["paths"]
            patches = [item["patch"] for path, item in paths.items() if "patch" in item and path.endswith("{name}")]
            told = {operation["x-kubernetes-group-version-kind"]["kind"] for operation in patches}
            assert told == {kind.kind for kind in kinds if "patch" in kind.verbs}
            for operation in patches:
                assert {"fieldValidation", "dryRun", "force"} <= {parameter["name"] for parameter in operation["parameters"]}


def test_documents_stand_alone() -> None:
    text = OpenApi(REGISTRY).document("apis/apps/v1")
    assert text
    schemas = orjson.loads(text.body)["components"]["schemas"]
    assert _references(orjson.loads(text.body)) <= {f"#/components/schemas/{name}" for name in schemas}


def test_types_carry_descriptions_and_extensions() -> None:
    schemas = document("api/v1")["components"]["schemas"]
    spec = schemas["io.k8s.api.core.v1.PodSpec"]
    assert spec["required"] == ["containers"]
    assert spec["properties"]["containers"]["x-kubernetes-patch-merge-key"] == "name"
    assert "containers belonging to the pod" in spec["properties"]["containers"]["description"]
    assert spec["properties"]["securityContext"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSecurityContext"}]
    assert schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return {found for item in node for found in _references(item)}
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own | {found for value in node.values() for found in _references(value)}
