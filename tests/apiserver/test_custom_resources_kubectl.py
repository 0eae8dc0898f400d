"""Custom resources through the genuine kubectl of two releases and the Python client."""

from __future__ import annotations

import json
import time

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.%(group)s}
spec:
  group: %(group)s
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [%(short)s], categories: [%(short)sall]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Schedule, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status', description: whether it runs}
    - {name: Last, type: string, priority: 1, jsonPath: '.status.conditions[-1:].type'}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.cronSpec}]
    schema:
      openAPIV3Schema:
        type: object
        description: A CronTab runs an image by the clock.
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: When to run., maxLength: 100}
              image: {type: string, default: busybox}
              replicas: {type: integer, default: 1, maximum: 5}
              limit: {x-kubernetes-int-or-string: true}
            x-kubernetes-validations:
            - {rule: 'self.replicas <= 3 || self.image != "busybox"', message: too many busyboxes}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
OBJECT = "apiVersion: %s/v1\nkind: CronTab\nmetadata: {name: %s}\nspec: {cronSpec: '* * * * *', replicas: %s}\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(params=range(len(KUBECTLS)), ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(KUBECTLS[request.param], cluster.admin())


@pytest.fixture
def group(request, kubectl):
    """A group with a definition of CronTab in it, gone after the test."""
    name = f"g{abs(hash(request.node.name)) % 10**8}.example.com"
    stdin = DEFINITION % {"group": name, "short": short(name)}
    assert "created" in kubectl("apply", "-f", "-", stdin=stdin)
    kubectl("wait", "--for=condition=Established", f"crd/crontabs.{name}", "--timeout=5s")
    yield name
    kubectl("delete", "crd", f"crontabs.{name}", "--timeout=10s")


def short(group):
    return "c" + group.partition(".")[0]


def test_a_day_with_a_custom_resource(kubectl, group):
    plural = f"crontabs.{group}"
    assert kubectl("apply", "-f", "-", stdin=OBJECT % (group, "a", 1)) == f"crontab.{group}/a created\n"
    assert kubectl("apply", "-f", "-", stdin=OBJECT % (group, "a", 1)) == f"crontab.{group}/a unchanged\n"
    assert kubectl("apply", "-f", "-", stdin=OBJECT % (group, "a", 2)) == f"crontab.{group}/a configured\n"
    head, row = kubectl("get", short(group)).splitlines()
    assert head.split() == ["NAME", "SCHEDULE", "REPLICAS", "READY", "AGE"]
    assert row.split()[:7] == ["a", *("*",) * 5, "2"]
    status = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}], "replicas": 2}})
    kubectl("patch", plural, "a", "--subresource=status", "--type=merge", "-p", status)
    head, row = kubectl("get", plural, "-o", "wide").splitlines()
    assert head.split() == ["NAME", "SCHEDULE", "REPLICAS", "READY", "LAST", "AGE"]
    assert row.split()[7:9] == ["True", "Ready"]
    assert kubectl("get", f"{short(group)}all", "-o", "name") == f"crontab.{group}/a\n"
    kubectl("wait", "--for=condition=Ready", plural, "a", "--timeout=3s")
    kubectl("scale", plural, "a", "--replicas=3")
    told = json.loads(kubectl("get", plural, "a", "-o", "json"))
    assert told["spec"]["replicas"] == 3
    assert told["metadata"]["generation"] == 3
    assert kubectl("get", plural, "--field-selector=spec.cronSpec=* * * * *", "-o", "name").strip().endswith("/a")
    assert "too many busyboxes" in kubectl.fails("patch", plural, "a", "--type=merge", "-p", '{"spec":{"replicas":4}}')
    assert "CronTab" in kubectl("describe", plural, "a")
    kubectl("label", plural, "a", "x=y")
    kubectl("delete", plural, "--all")
    assert kubectl("get", plural, "-o", "name") == ""


def test_known_to_discovery_and_openapi(kubectl, group):
    resources = [line.split() for line in kubectl("api-resources", f"--api-group={group}", "--no-headers").splitlines()]
    assert resources == [["crontabs", short(group), f"{group}/v1", "true", "CronTab"]]
    told = kubectl("explain", f"crontabs.{group}.spec")
    assert "When to run." in told
    assert "cronSpec\t<string> -required-" in told
    assert "A CronTab runs an image by the clock." in kubectl("explain", f"crontabs.{group}")
    stdin = DEFINITION % {"group": group, "short": short(group)}
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=stdin)
    before = json.loads(kubectl("get", "--raw", "/openapi/v3"))["paths"][f"apis/{group}/v1"]
    kubectl("apply", "-f", "-", stdin=stdin.replace("When to run.", "At what time."))
    assert json.loads(kubectl("get", "--raw", "/openapi/v3"))["paths"][f"apis/{group}/v1"] != before
    assert "At what time." in kubectl("explain", f"crontabs.{group}.spec")


def test_field_validation(kubectl, group):
    unknown = (OBJECT % (group, "a", 1)).replace("replicas: 1", "replicas: 1, extra: 2")
    assert 'strict decoding error: unknown field "spec.extra"' in kubectl.fails("apply", "-f", "-", stdin=unknown)
    warned = kubectl.run("apply", "--validate=warn", "-f", "-", stdin=unknown)
    assert 'Warning: unknown field "spec.extra"' in warned.stderr
    assert "extra" not in kubectl("get", f"crontabs.{group}", "a", "-o", "yaml").split("\nspec:")[1]
    wrong = kubectl.fails("apply", "-f", "-", stdin=OBJECT % (group, "b", "many"))
    assert 'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"' in wrong


def test_server_side_apply_and_diff(kubectl, group):
    arguments = ("--server-side", "-f", "-")
    assert kubectl("apply", *arguments, stdin=OBJECT % (group, "a", 1)) == f"crontab.{group}/a serverside-applied\n"
    conflict = kubectl.fails("apply", "--field-manager=other", *arguments, stdin=OBJECT % (group, "a", 2))
    assert ".spec.replicas" in conflict
    kubectl("apply", "--field-manager=other", "--force-conflicts", *arguments, stdin=OBJECT % (group, "a", 2))
    assert "+  replicas: 3" in kubectl.run("diff", "-f", "-", stdin=OBJECT % (group, "a", 3)).stdout


def test_definition_goes_with_its_objects(kubectl, group):
    kubectl("apply", "-f", "-", stdin=OBJECT % (group, "a", 1))
    started = time.monotonic()
    kubectl("delete", "crd", f"crontabs.{group}")
    assert time.monotonic() - started < 5
    assert "the server doesn't have a resource type" in kubectl.fails("get", f"crontabs.{group}")
    kubectl("apply", "-f", "-", stdin=DEFINITION % {"group": group, "short": short(group)})
    assert kubectl("get", f"crontabs.{group}", "-o", "name") == ""


def test_the_python_client(cluster, kubectl, group):
    from kubernetes import client, config

    with config.new_client_from_config(str(cluster.admin())) as api:
        custom = client.CustomObjectsApi(api)
        where = {"group": group, "version": "v1", "namespace": "default", "plural": "crontabs"}
        body = {"apiVersion": f"{group}/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {"cronSpec": "x"}}
        assert custom.create_namespaced_custom_object(body=body, **where)["spec"]["image"] == "busybox"
        custom.patch_namespaced_custom_object_status(name="a", body={"status": {"phase": "Up"}}, **where)
        assert custom.get_namespaced_custom_object(name="a", **where)["status"] == {"phase": "Up"}
        custom.patch_namespaced_custom_object_scale(name="a", body={"spec": {"replicas": 2}}, **where)
        assert custom.get_namespaced_custom_object_scale(name="a", **where)["spec"] == {"replicas": 2}
        assert len(custom.list_cluster_custom_object(group, "v1", "crontabs")["items"]) == 1
        with pytest.raises(client.ApiException) as error:
            custom.patch_namespaced_custom_object(name="a", body={"spec": {"replicas": 9}}, **where)
        assert error.value.status == 422
        assert custom.delete_namespaced_custom_object(name="a", **where)["status"] == "Success"
        definitions = client.ApiextensionsV1Api(api).list_custom_resource_definition()
        assert f"crontabs.{group}" in [item.metadata.name for item in definitions.items]
