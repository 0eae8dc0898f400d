"""[sig-api-machinery] CustomResourcePublishOpenAPI: /openapi/v2 follows the definitions, and kubectl explains by it."""

import json
import subprocess

import pytest
from conformance_api import until
from conformance_definitions import name_of_definition

from cluster_harness import KUBECTLS

FOO = {
    "description": "Foo CRD for Testing",
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "description": "Specification of Foo",
            "properties": {
                "bars": {
                    "description": "List of Bars and their specs.",
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"description": "Name of Bar.", "type": "string"},
                            "age": {"description": "Age of Bar.", "type": "string"},
                            "feeling": {"description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"]},
                            "bazs": {"description": "List of Bazs.", "items": {"type": "string"}, "type": "array"},
                        },
                    },
                }
            },
        },
        "status": {
            "description": "Status of Foo",
            "type": "object",
            "properties": {"bars": {"type": "array", "items": {"type": "object"}}},
        },
    },
}
EMBEDDED = {
    "type": "object",
    "properties": {"spec": {"type": "object", "description": "Specification of Waldo", "x-kubernetes-preserve-unknown-fields": True}},
}


def with_schema(value):
    return {"schema": {"openAPIV3Schema": value}}


@pytest.fixture
def published(api):
    """group, version, kind → the definition in /openapi/v2."""

    def read():
        found = {}
        for name, definition in api.get("/openapi/v2")["definitions"].items():
            for each in definition.get("x-kubernetes-group-version-kind") or ():
                if each["group"].endswith(".example.com") and not each["kind"].endswith("List"):
                    found[each["group"], each["version"], each["kind"]] = {"name": name, **definition}
        return found

    return read


@pytest.fixture
def kubectl(plane, ns):
    def run(*words, given=None):
        command = [KUBECTLS[0], "--kubeconfig", str(plane.instance.kubeconfig), "-n", ns, *words]
        done = subprocess.run(command, input=json.dumps(given) if given else None, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def there(published, *resources):
    """The published definitions of these resources, waited for."""
    keys = [(each.group, each.version, each.kind) for each in resources]
    found = until(lambda: all(key in (seen := published()) for key in keys) and seen, f"{keys} are published")
    return [found[key] for key in keys]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]"
)
def test_a_schema_is_published_and_used_by_kubectl(api, ns, definitions, published, kubectl):
    (foos,) = definitions.new(versions={"v1": with_schema(FOO)})
    (found,) = there(published, foos)
    bars = found["properties"]["spec"]["properties"]["bars"]
    assert bars["items"]["required"] == ["name"]
    assert (found["description"], bars["description"]) == (FOO["description"], "List of Bars and their specs.")
    assert found["properties"]["metadata"]["$ref"].endswith("ObjectMeta")
    foo = api.at(foos, ns).make("test-foo", spec={"bars": [{"name": "test-bar", "age": "10", "bazs": ["x"]}]})
    assert kubectl("create", "-f", "-", given=foo)[0] == 0
    assert kubectl("delete", name_of_definition(foos), "test-foo")[0] == 0
    assert kubectl("apply", "-f", "-", given=foo)[0] == 0
    unknown = {**foo, "spec": {"bars": [{"name": "test-bar", "unknown": "x"}]}}
    code, _, error = kubectl("create", "-f", "-", given=unknown)
    assert code != 0
    assert "unknown" in error
    code, _, error = kubectl("create", "-f", "-", given={**foo, "spec": {"bars": [{"age": "10"}]}})
    assert code != 0
    assert "name" in error
    code, _, error = kubectl("create", "-f", "-", given={**foo, "spec": {"bars": [{"name": "x", "feeling": "NonExistentValue"}]}})
    assert code != 0
    assert "Unsupported value" in error
    plural = f"{foos.plural}.{foos.group}"
    assert "Foo CRD for Testing" in kubectl("explain", plural)[1]
    assert "bars" in kubectl("explain", f"{plural}.spec", "--recursive")[1]
    assert "List of Bars and their specs" in kubectl("explain", f"{plural}.spec.bars")[1]
    assert kubectl("explain", f"{plural}.spec.bars2")[0] != 0


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]"
)
def test_no_schema_is_published_as_an_object(api, ns, definitions, published, kubectl):
    (foos,) = definitions.new()
    (found,) = there(published, foos)
    assert found["type"] == "object"
    anything = api.at(foos, ns).make("test-cr", a={"b": [{"c": "d"}]})
    assert kubectl("create", "-f", "-", given=anything)[0] == 0
    assert kubectl("apply", "-f", "-", given={**anything, "more": 1})[0] == 0
    assert foos.kind in kubectl("explain", f"{foos.plural}.{foos.group}")[1]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the "
    "schema root [Conformance]"
)
def test_a_root_that_keeps_unknown_fields_is_published(api, ns, definitions, published, kubectl):
    (foos,) = definitions.new(versions={"v1": with_schema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})})
    (found,) = there(published, foos)
    assert found["x-kubernetes-preserve-unknown-fields"] is True
    anything = api.at(foos, ns).make("test-cr", a={"b": [{"c": "d"}]})
    assert kubectl("create", "-f", "-", given=anything)[0] == 0
    assert kubectl("apply", "-f", "-", given={**anything, "more": 1})[0] == 0
    assert api.at(foos, ns).get("test-cr")["more"] == 1
    assert foos.kind in kubectl("explain", f"{foos.plural}.{foos.group}")[1]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an "
    "embedded object [Conformance]"
)
def test_an_embedded_object_that_keeps_unknown_fields_is_published(api, ns, definitions, published, kubectl):
    (foos,) = definitions.new(versions={"v1": with_schema(EMBEDDED)})
    (found,) = there(published, foos)
    assert found["properties"]["spec"]["description"] == "Specification of Waldo"
    made = api.at(foos, ns).make("test-cr", spec={"b": [{"c": "d"}]})
    assert kubectl("create", "-f", "-", given=made)[0] == 0
    assert kubectl("apply", "-f", "-", given={**made, "spec": {"b": []}})[0] == 0
    assert "Specification of Waldo" in kubectl("explain", f"{foos.plural}.{foos.group}")[1]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]"
)
def test_two_groups_are_published(definitions, published):
    (a,), (b,) = definitions.new(versions={"v1": with_schema(FOO)}), definitions.new(versions={"v1": with_schema(FOO)})
    assert a.group != b.group
    one, two = there(published, a, b)
    assert one["properties"]["spec"] == two["properties"]["spec"]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but "
    "different versions [Conformance]"
)
def test_two_versions_are_published(definitions, published):
    v1, v2 = definitions.new(versions={"v1": with_schema(FOO), "v2": with_schema(EMBEDDED)})
    one, two = there(published, v1, v2)
    assert "bars" in one["properties"]["spec"]["properties"]
    assert two["properties"]["spec"]["description"] == "Specification of Waldo"


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version "
    "but different kinds [Conformance]"
)
def test_two_kinds_are_published(definitions, published):
    group = definitions.group()
    (a,) = definitions.new("Foo", {"v1": with_schema(FOO)}, group=group)
    (b,) = definitions.new("Waldo", {"v1": with_schema(EMBEDDED)}, group=group)
    one, two = there(published, a, b)
    assert one["name"] != two["name"]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets "
    "renamed [Conformance]"
)
def test_a_renamed_version_is_published_under_its_new_name(definitions, published):
    v2, v3 = definitions.new(versions={"v2": with_schema(FOO), "v3": with_schema(FOO)})
    there(published, v2, v3)
    definitions.door.patch(name_of_definition(v2), [{"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}], "json")
    there(published, v2, v3._replace(version="v4"))
    assert (v3.group, "v3", "Foo") not in published()


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version "
    "gets changed to not be served [Conformance]"
)
def test_a_version_that_is_served_no_more_is_published_no_more(definitions, published):
    v5, v6 = definitions.new(versions={"v5": with_schema(FOO), "v6": with_schema(FOO)})
    before, _ = there(published, v5, v6)
    definitions.door.patch(name_of_definition(v5), [{"op": "replace", "path": "/spec/versions/1/served", "value": False}], "json")
    until(lambda: (v6.group, "v6", "Foo") not in published(), "v6 is gone")
    assert there(published, v5) == [before]
