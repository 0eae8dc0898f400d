from __future__ import annotations

import time
from typing import Any

import pytest
from kinds_samples import REGISTRY, deployment, kind_of, pod

from atoll.apiserver.machinery.schema_file import SchemaFile, schema_file


def validate(obj: dict[str, Any]) -> Any:
    return kind_of(obj).schema.validate(obj)


def test_a_clean_object_comes_back_as_it_is() -> None:
    obj = deployment()
    assert validate(obj).object is obj


def test_unknown_fields_are_named_with_indices_and_pruned() -> None:
    obj = pod(containers=[{"name": "a", "image": "b", "imagee": "x"}], foo={"bar": 1})
    outcome = validate({**obj, "extra": 1})
    assert sorted(outcome.unknown) == [
        'unknown field "extra"',
        'unknown field "spec.containers[0].imagee"',
        'unknown field "spec.foo"',
    ]
    assert outcome.object == pod(containers=[{"name": "a", "image": "b"}])
    assert "foo" in obj["spec"], "the caller's object is not changed"


def test_nulls_and_empty_collections_go_but_empty_structs_and_strings_stay() -> None:
    obj = pod(
        containers=[{"name": "a", "image": "b", "args": [], "command": None, "resources": {}}],
        nodeSelector={},
        volumes=[{"name": "v", "emptyDir": {}}],
        hostname="",
    )
    obj["metadata"]["labels"] = {}
    cleaned = validate(obj).object
    assert "labels" not in cleaned["metadata"]
    assert cleaned["spec"] == {
        "containers": [{"name": "a", "image": "b", "resources": {}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "hostname": "",
    }


def test_raw_fields_are_kept_as_they_came() -> None:
    data = {"any": [1, None, {"deep": {}}], "empty": {}}
    obj = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r", "labels": {}}, "revision": 1, "data": data}
    assert validate(obj).object["data"] == data


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (
            {"priority": 1 << 70},
            f"json: cannot unmarshal number {1 << 70} into Go struct field PodSpec.spec.priority of type int32",
        ),
        ({"containers": "x"}, "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"),
        ({"containers": ["x"]}, "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container"),
        (
            {"containers": [{"ports": [{"containerPort": "80"}]}]},
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            {"terminationGracePeriodSeconds": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            {"containers": [{"env": [{"name": "A", "value": 1}]}]},
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        ({"hostNetwork": "true"}, "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool"),
        ({"nodeSelector": {"a": True}}, "json: cannot unmarshal bool into Go struct field PodSpec.spec.nodeSelector of type string"),
        ([], "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
        (
            {"containers": [{"resources": {"limits": {"cpu": "much"}}}]},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            {"containers": [{"livenessProbe": {"httpGet": {"port": {}}}}]},
            "json: cannot unmarshal object into Go value of type int32",
        ),
    ],
)
def test_wrong_types_are_told_in_the_words_of_gos_decoder(spec: Any, error: str) -> None:
    assert validate({**pod(), "spec": spec}).error == error


def test_times_are_read_in_any_zone_and_written_in_utc() -> None:
    obj = pod()
    obj["metadata"]["creationTimestamp"] = "2026-01-02T03:04:05+02:00"
    assert validate(obj).object["metadata"]["creationTimestamp"] == "2026-01-02T01:04:05Z"
    obj["metadata"]["creationTimestamp"] = "2026-13-02T03:04:05Z"
    assert validate(obj).error.startswith('parsing time "2026-13-02T03:04:05Z"')


def test_base64_is_checked() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGk="}}
    assert validate(secret).object is secret
    assert validate({**secret, "data": {"k": "a*b="}}).error == "illegal base64 data at input byte 1"
    assert validate({**secret, "data": {"k": "aG\nk="}}).object["data"] == {"k": "aGk="}


def test_required_fields_are_missed_only_outside_of_status() -> None:
    obj = pod(volumes=[{"name": "v", "hostPath": {}}])
    obj["status"] = {"containerStatuses": [{}]}
    assert kind_of(obj).schema.missing(obj) == [("FieldValueRequired", "Required value", "spec.volumes[0].hostPath.path")]


def test_types_that_refer_to_themselves_are_walked() -> None:
    inner = {"type": "object", "properties": {"spec": {"type": "object", "wrong": 1}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": inner}}
    spec = {"group": "a.b", "scope": "Cluster", "names": {"plural": "xs", "kind": "X"}, "versions": [version]}
    obj = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "xs.a.b"}, "spec": spec}
    assert validate(obj).unknown == ('unknown field "spec.versions[0].schema.openAPIV3Schema.properties.spec.wrong"',)


def test_a_schema_too_deep_to_walk_is_refused() -> None:
    inner: dict[str, Any] = {"type": "object"}
    for _ in range(1000):
        inner = {"properties": {"a": inner}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": inner}}
    spec = {"group": "a.b", "scope": "Cluster", "names": {"plural": "xs", "kind": "X"}, "versions": [version]}
    obj = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "xs.a.b"}, "spec": spec}
    assert validate(obj).error == "exceeded max depth"


def test_patch_extensions() -> None:
    schema = kind_of(pod()).schema
    ports = schema.patch_meta(("spec", "containers", "*", "ports"))
    assert (ports.shape, ports.patch_strategy, ports.merge_key) == ("list", ("merge",), "containerPort")
    assert (ports.list_type, ports.list_map_keys) == ("map", ("containerPort", "protocol"))
    assert schema.patch_meta(("spec", "volumes")).patch_strategy == ("merge", "retainKeys")
    assert schema.patch_meta(("metadata", "finalizers")).list_type == "set"
    assert schema.patch_meta(("spec", "nodeSelector")).map_type == "atomic"
    assert schema.patch_meta(("metadata", "labels")).shape == "map"
    assert schema.patch_meta(("metadata", "labels", "*")).shape == "scalar"
    assert schema.patch_meta(("spec", "no", "such")).shape == "any"


def test_all_types_load_quickly() -> None:
    started = time.process_time()
    SchemaFile(_data())
    for kind in REGISTRY:
        kind.schema.validate({})
    assert time.process_time() - started < 0.06


def test_a_file_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="install Atoll again"):
        SchemaFile(b"something else")


def _data() -> bytes:
    from importlib import resources

    return resources.files("atoll.apiserver.machinery").joinpath("schemas.bin").read_bytes()


def test_the_file_is_of_the_version_we_claim() -> None:
    assert schema_file().version.startswith("1.36")
