"""[sig-api-machinery] FieldValidation: unknown and duplicate fields are refused, warned of or passed over, as the request says."""

import pytest
from conformance_api import PATCHES, Refused
from conformance_definitions import ANYTHING

from atoll.client.resources import DEPLOYMENTS


def post(door, body, validation, kind="application/yaml"):
    return door.api.request("POST", door.path(), body, kind=kind, fieldValidation=validation)


def apply(door, name, body, **query):
    return door.api.request("PATCH", door.path(name), body, kind=PATCHES["apply"], fieldManager="test", **query)


@pytest.mark.conformance("[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]")
def test_unknown_and_duplicate_fields_of_a_typed_object(api, ns):
    door = api.at(DEPLOYMENTS, ns)
    body = b"""{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"my-dep","labels":{"app":"nginx"}},
    "spec":{"unknown1":"val1","unknownDupe":"valDupe","unknownDupe":"valDupe2","paused":true,"paused":false,
    "selector":{"matchLabels":{"app":"nginx"}},"template":{"metadata":{"labels":{"app":"nginx"}},
    "spec":{"containers":[{"name":"nginx","image":"nginx:latest","unknownNested":"val1","imagePullPolicy":"Always","imagePullPolicy":"Never"}]}}}}"""
    refused = post(door, body, "Strict", "application/json")
    assert refused.code == 400
    for each in (
        'unknown field "spec.unknown1"',
        'unknown field "spec.unknownDupe"',
        'duplicate field "spec.paused"',
        'unknown field "spec.template.spec.containers[0].unknownNested"',
        'duplicate field "spec.template.spec.containers[0].imagePullPolicy"',
    ):
        assert each in refused.json()["message"]
    warned = post(door, body, "Warn", "application/json")
    assert warned.code == 201
    assert any("spec.unknown1" in warning for warning in warned.warnings)
    door.delete("my-dep")
    silent = post(door, body, "Ignore", "application/json")
    assert (silent.code, silent.warnings) == (201, [])


@pytest.mark.conformance("[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]")
def test_unknown_metadata_of_a_typed_object(api, ns):
    door = api.at(DEPLOYMENTS, ns)
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}
    spec["template"]["spec"]["containers"] = [{"name": "c", "image": "i"}]
    with pytest.raises(Refused) as refused:
        door.create(door.make("d", metadata={"unknownMeta": "x"}, spec=spec), fieldValidation="Strict")
    assert refused.value.code == 400
    assert 'unknown field "metadata.unknownMeta"' in refused.value.message
    body = door.make("d", metadata={"unknownMeta": "x"}, spec=spec)
    with pytest.raises(Refused) as refused:
        door.patch("d", body, "apply", fieldManager="t", fieldValidation="Strict")
    assert "metadata.unknownMeta" in refused.value.message
    assert door.gone("d")


FOO = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "cronSpec": {"type": "string"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                    "x-kubernetes-list-type": "map",
                    "items": {
                        "type": "object",
                        "properties": {
                            "containerPort": {"type": "integer", "format": "int32"},
                            "hostIP": {"type": "string"},
                            "hostPort": {"type": "integer"},
                            "name": {"type": "string"},
                            "protocol": {"type": "string"},
                        },
                        "required": ["containerPort", "protocol"],
                    },
                },
            },
        }
    },
}
PORTS = [{"name": "x", "containerPort": 80, "protocol": "TCP"}]


@pytest.fixture
def foos(api, ns, definitions):
    (found,) = definitions.new(versions={"v1": {"schema": {"openAPIV3Schema": FOO}}})
    return api.at(found, ns)


@pytest.mark.conformance("[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]")
def test_a_valid_custom_resource_is_applied(foos):
    body = foos.make("mytest", metadata={"finalizers": None}, spec={"cronSpec": "* * * * */5", "ports": PORTS})
    answer = foos.patch("mytest", body, "apply", fieldManager="t", fieldValidation="Strict")
    assert answer["spec"] == {"cronSpec": "* * * * */5", "ports": PORTS}


@pytest.mark.conformance(
    "[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema "
    "[Conformance]"
)
def test_a_custom_resource_with_more_than_its_schema_knows(foos):
    body = foos.make("mytest", spec={"cronSpec": "* * * * */5", "ports": PORTS, "unknown": "uk1", "knownField1": "x"})
    with pytest.raises(Refused) as refused:
        foos.patch("mytest", body, "apply", fieldManager="t", fieldValidation="Strict")
    assert 'unknown field "spec.unknown"' in refused.value.message
    warned = foos.api.request("PATCH", foos.path("mytest"), body, kind=PATCHES["apply"], fieldManager="t", fieldValidation="Warn")
    assert warned.code == 201
    assert any("spec.unknown" in warning for warning in warned.warnings)
    assert foos.get("mytest")["spec"] == {"cronSpec": "* * * * */5", "ports": PORTS}


@pytest.mark.conformance(
    "[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]"
)
def test_a_custom_resource_whose_definition_knows_nothing(api, ns, definitions):
    (found,) = definitions.new(versions={"v1": {"schema": {"openAPIV3Schema": ANYTHING}}})
    door = api.at(found, ns)
    spec = {"unknown1": "uk1", "cronSpec": "*", "ports": [{**PORTS[0], "unknownNested": True}]}
    answer = door.patch("mytest", door.make("mytest", spec=spec), "apply", fieldManager="t", fieldValidation="Strict")
    assert answer["spec"] == spec


@pytest.mark.conformance(
    "[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]"
)
def test_duplicates_in_what_is_kept_unknown(api, ns, definitions):
    (found,) = definitions.new(versions={"v1": {"schema": {"openAPIV3Schema": ANYTHING}}})
    door = api.at(found, ns)
    body = f"""{{"apiVersion":"{found.api_version}","kind":"Foo","metadata":{{"name":"mytest"}},
    "spec":{{"unknown1":"a","unknownDupe":"b","unknownDupe":"c","cronSpec":"1","cronSpec":"2"}}}}""".encode()
    refused = post(door, body, "Strict", "application/json")
    assert refused.code == 400
    assert 'duplicate field "spec.unknownDupe"' in refused.json()["message"]
    assert 'duplicate field "spec.cronSpec"' in refused.json()["message"]
    yaml = f"apiVersion: {found.api_version}\nkind: Foo\nmetadata: {{name: mytest}}\nspec:\n  a: 1\n  a: 2\n".encode()
    refused = apply(door, "mytest", yaml, fieldValidation="Strict")
    assert refused.code == 400
    assert 'key "a" already set in map' in refused.json()["message"]


@pytest.mark.conformance(
    "[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]"
)
def test_unknown_metadata_of_a_custom_resource_and_of_what_it_embeds(api, ns, definitions):
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    template = {"type": "object", "properties": {"template": embedded}}
    entry = {"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": template}}}}
    (found,) = definitions.new(versions={"v1": entry})
    door = api.at(found, ns)
    inner = {"apiVersion": "foo/v1", "kind": "Sub", "metadata": {"name": "subobject", "unknownSubMeta": "x"}}
    body = door.make("mytest", metadata={"unknownMeta": "x"}, spec={"template": inner})
    with pytest.raises(Refused) as refused:
        door.patch("mytest", body, "apply", fieldManager="t", fieldValidation="Strict")
    for each in ('unknown field "metadata.unknownMeta"', 'unknown field "spec.template.metadata.unknownSubMeta"'):
        assert each in refused.value.message
