"""[sig-api-machinery] CustomResourceDefinitions: life, status, discovery, defaults, watches, selectable fields."""

import pytest
from conformance_api import until
from conformance_definitions import name_of_definition, schema

GROUP = "/apis/apiextensions.k8s.io"


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition "
    "creating/deleting custom resource definition objects works [Conformance]"
)
def test_a_definition_comes_and_goes(api, definitions):
    (foos,) = definitions.new()
    assert foos.plural in [entry["name"] for entry in api.get(f"/apis/{foos.group}/v1")["resources"]]
    definitions.door.delete(name_of_definition(foos))
    definitions.door.until_gone(name_of_definition(foos))
    until(lambda: api.request("GET", f"/apis/{foos.group}").code == 404, "the group is gone")


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing "
    "custom resource definition objects works [Conformance]"
)
def test_definitions_are_listed_and_deleted_by_label(definitions):
    names = []
    for _ in range(5):
        body = definitions.body(definitions.group(), "Foo", {"v1": {}})
        body["metadata"]["labels"] = {"e2e-list-test-uuid": "listed"}
        names.append(definitions.door.create(body)["metadata"]["name"])
    selector = {"labelSelector": "e2e-list-test-uuid=listed"}
    assert sorted(definitions.door.names(**selector)) == sorted(names)
    definitions.door.delete_all(**selector)
    until(lambda: not definitions.door.names(**selector), "all are gone")


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition "
    "getting/updating/patching custom resource definition status sub-resource works [Conformance]"
)
def test_the_status_of_a_definition_is_read_replaced_and_patched(definitions):
    (foos,) = definitions.new()
    name = name_of_definition(foos)
    found = definitions.door.get(name, "status")
    assert found["kind"] == "CustomResourceDefinition"
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}
    replaced = definitions.door.change(name, lambda crd: crd["status"]["conditions"].append(condition), "status")
    assert condition.items() <= replaced["status"]["conditions"][-1].items()
    message = "patched"
    index = len(replaced["status"]["conditions"]) - 1
    patched = definitions.door.patch(
        name, [{"op": "replace", "path": f"/status/conditions/{index}/message", "value": message}], "json", "status"
    )
    assert patched["status"]["conditions"][index]["message"] == message
    assert patched["metadata"]["generation"] == found["metadata"]["generation"]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition "
    "resources in discovery documents [Conformance]"
)
def test_definitions_are_discovered(api):
    groups = api.get("/apis")["groups"]
    group = next(group for group in groups if group["name"] == "apiextensions.k8s.io")
    assert {"groupVersion": "apiextensions.k8s.io/v1", "version": "v1"} in group["versions"]
    assert {"groupVersion": "apiextensions.k8s.io/v1", "version": "v1"} in api.get(GROUP)["versions"]
    found = next(entry for entry in api.get(f"{GROUP}/v1")["resources"] if entry["name"] == "customresourcedefinitions")
    assert found["kind"] == "CustomResourceDefinition"


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and "
    "from storage works [Conformance]"
)
def test_defaults_come_at_requests_and_out_of_storage(api, ns, definitions):
    (foos,) = definitions.new(versions={"v1": schema()})
    door = api.at(foos, ns)

    def properties(**defaults):
        made = {name: {"type": "string", "default": value} for name, value in defaults.items()}
        entry = {"type": "object", "properties": made}
        return [{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": entry}]

    door.new("old")
    definitions.door.patch(name_of_definition(foos), properties(a="A"), "json")
    until(lambda: door.get("old").get("a") == "A", "the default out of storage")
    new = until(lambda: (made := door.new(metadata={"generateName": "new-"})).get("a") and made, "the default at create")
    assert new["a"] == "A"
    definitions.door.patch(name_of_definition(foos), properties(a="A", b="B"), "json")
    until(lambda: door.get("old").get("b") == "B", "the second default out of storage")
    definitions.door.patch(name_of_definition(foos), properties(b="B"), "json")
    until(lambda: "a" not in door.get("old"), "what was only a default is not stored")
    definitions.door.patch(
        name_of_definition(foos),
        [
            {
                "op": "replace",
                "path": "/spec/versions/0/schema/openAPIV3Schema",
                "value": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            }
        ],
        "json",
    )
    until(lambda: "b" not in door.get("old"), "no default is left")
    kept = door.get(new["metadata"]["name"])
    assert (kept.get("a"), kept.get("b")) == ("A", None)


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom "
    "resource definition objects [Conformance]"
)
def test_custom_resources_are_watched(api, definitions):
    (foos,) = definitions.new(scope="Cluster")
    door = api.at(foos)
    with door.watch(fieldSelector="metadata.name=a") as one, door.watch() as both:
        a = door.new("a", content={"key": "value"}, num={"num1": 1})
        b = door.new("b", content={"key": "other"})
        assert one.next() == ("ADDED", a)
        assert [both.next(), both.next()] == [("ADDED", a), ("ADDED", b)]
        changed = door.patch("a", {"dummy": "test"})
        assert one.next() == ("MODIFIED", changed)
        assert both.next() == ("MODIFIED", changed)
        for name in "ab":
            door.delete(name)
        assert one.next()[0] == "DELETED"
        assert [both.next()[1]["metadata"]["name"] for _ in range(2)] == ["a", "b"]


@pytest.mark.conformance(
    "[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch "
    "custom resources matching the field selector [Conformance]"
)
def test_custom_resources_are_selected_by_their_own_fields(api, ns, definitions):
    text = {"type": "string"}
    one = {
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"hostPort": text}}},
        "selectableFields": [{"jsonPath": ".hostPort"}],
    }
    both = {"type": "object", "properties": {"host": text, "port": text}}
    two = {"schema": {"openAPIV3Schema": both}, "selectableFields": [{"jsonPath": ".host"}, {"jsonPath": ".port"}]}
    _, v2 = definitions.new(versions={"v1": one | {"storage": False}, "v2": two | {"storage": True}})
    found = definitions.door.get(name_of_definition(v2))
    assert [version["selectableFields"] for version in found["spec"]["versions"]] == [each["selectableFields"] for each in (one, two)]
    door = api.at(v2, ns)
    with door.watch(fieldSelector="host=host1") as host1, door.watch(fieldSelector="host=host1,port=80") as exact:
        a = door.new("a", host="host1", port="80")
        b = door.new("b", host="host1", port="8080")
        c = door.new("c", host="host2", port="80")
        assert (door.names(fieldSelector="host=host1"), door.names(fieldSelector="host=host1,port=80")) == (["a", "b"], ["a"])
        assert [host1.next(), host1.next()] == [("ADDED", a), ("ADDED", b)]
        assert exact.next() == ("ADDED", a)
        door.delete_all(fieldSelector="host=host1,port=80")
        assert host1.next()[0] == exact.next()[0] == "DELETED"
        assert door.names() == ["b", "c"]
        door.patch("c", {"host": "host1"})
        assert host1.next() == ("ADDED", door.get("c"))
        assert c["host"] == "host2"


def test_a_version_stored_and_not_served_holds_the_others(api, ns, definitions):
    _, v2 = definitions.new(versions={"v1": {"served": False}, "v2": {}})
    door = api.at(v2, ns)
    assert door.new("a", spec={"x": 1})["apiVersion"] == v2.api_version
    assert door.get("a")["spec"] == {"x": 1}
    assert api.request("GET", v2._replace(version="v1").path(ns)).code == 404
