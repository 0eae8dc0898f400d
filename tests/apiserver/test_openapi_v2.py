"""OpenAPI v2: kubectl validates the items of a List by it, in protobuf; the JSON form says the same."""

from __future__ import annotations

import json
from itertools import count

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.openapi_protobuf import encode_swagger
from atoll.apiserver.machinery.openapi_v2 import swagger

NUMBERS = count()
ITEMS = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: %(name)s-a}, data: {key: value}}
- {apiVersion: v1, kind: Service, metadata: {name: %(name)s-b}, spec: {selector: {a: b}, ports: [{port: 80, targetPort: http}]}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: %(name)s-c}
  spec:
    selector: {matchLabels: {a: b}}
    template:
      metadata: {labels: {a: b}}
      spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 500m, memory: 1Gi}}}]}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(params=KUBECTLS, ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(request.param, cluster.admin())


@pytest.fixture
def name():
    return f"list{next(NUMBERS)}"


def test_a_list_is_created_and_applied(kubectl, name):
    manifest = ITEMS % {"name": name}
    created = [f"configmap/{name}-a created", f"service/{name}-b created", f"deployment.apps/{name}-c created"]
    assert kubectl("create", "-f", "-", stdin=manifest).splitlines() == created
    assert "AlreadyExists" in kubectl.fails("create", "-f", "-", stdin=manifest)
    kubectl("delete", "-f", "-", "--wait=false", stdin=manifest)
    assert kubectl("apply", "-f", "-", stdin=manifest).splitlines() == created
    kubectl("delete", "-f", "-", "--wait=false", stdin=manifest)


def test_what_get_prints_can_be_applied(kubectl, name):
    for letter in "ab":
        kubectl("create", "configmap", f"{name}-{letter}", "--from-literal=k=v")
    names = [f"cm/{name}-a", f"cm/{name}-b"]
    printed = kubectl("get", *names, "-o", "yaml")
    assert "kind: List" in printed
    kubectl("apply", "-f", "-", stdin=printed)
    changed = kubectl("get", *names, "-o", "yaml").replace("k: v", "k: w")
    assert kubectl("apply", "-f", "-", stdin=changed).splitlines() == [f"configmap/{name}-a configured", f"configmap/{name}-b configured"]


def test_kubectl_finds_a_wrong_field_of_an_item(kubectl, name):
    wrong = (ITEMS % {"name": name}).replace("targetPort", "targetPrt")
    assert 'unknown field "targetPrt"' in kubectl.fails("create", "-f", "-", stdin=wrong)


def test_a_service_that_exists_is_told_so_whatever_its_address(kubectl, name):
    kubectl("create", "service", "clusterip", name, "--tcp=80")
    service = kubectl("get", "svc", name, "-o", "json")
    created = json.loads(service)
    del created["metadata"]["resourceVersion"]
    assert f'Error from server (AlreadyExists): error when creating "STDIN": services "{name}" already exists' in kubectl.fails(
        "create", "-f", "-", stdin=json.dumps(created)
    )


def test_the_document_in_json(kubectl):
    document = json.loads(kubectl("get", "--raw", "/openapi/v2"))
    assert document["swagger"] == "2.0"
    container = document["definitions"]["io.k8s.api.core.v1.Container"]
    assert container["required"] == ["name"]
    assert container["properties"]["resources"]["$ref"] == "#/definitions/io.k8s.api.core.v1.ResourceRequirements"
    patch = document["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"]
    assert {"name": "body", "in": "body"}.items() <= patch["parameters"][0].items()
    assert {"dryRun", "fieldValidation"} <= {each["name"] for each in patch["parameters"]}


def test_every_reference_leads_to_a_definition():
    document = swagger(KindRegistry.builtin(), "v1.36.0")
    assert encode_swagger(document).startswith(b"\x0a\x032.0")
    wanted = set()

    def walk(node):
        if isinstance(node, dict):
            wanted.update([node["$ref"]] if isinstance(node.get("$ref"), str) else ())
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(document)
    assert wanted <= {f"#/definitions/{name}" for name in document["definitions"]}
