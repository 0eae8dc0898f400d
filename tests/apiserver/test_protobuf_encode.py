"""Protobuf answers: what is written reads back as it was, for every kind of value, and only those who want nothing else get it."""

from __future__ import annotations

import pytest
from kinds_samples import deployment, pod

from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.negotiate import negotiate
from atoll.apiserver.machinery.protobuf import decode_protobuf
from atoll.apiserver.machinery.protobuf_encode import encode_frame, encode_list, encode_object, is_encodable
from atoll.errors import StatusError

META = {"name": "a", "namespace": "b", "labels": {"x": "1", "y": "2"}, "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 3}
OWNED = [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": False}]
MANAGED = [
    {"manager": "m", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}}}, "time": "2026-01-02T03:04:05Z"}
]
CONTAINER = {
    "name": "c",
    "image": "i",
    "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
    "ports": [{"containerPort": 80, "protocol": "TCP"}],
    "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
    "readinessProbe": {"tcpSocket": {"port": 80}},
    "env": [{"name": "E", "value": "1"}, {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "securityContext": {"runAsUser": 0, "privileged": False},
}
VOLUMES = [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}]
OBJECTS = (
    {"kind": "ConfigMap", "apiVersion": "v1", "metadata": META, "data": {"k": "ü"}, "binaryData": {"b": "AP8="}, "immutable": False},
    {"kind": "Secret", "apiVersion": "v1", "metadata": {**META, "ownerReferences": OWNED, "managedFields": MANAGED}, "data": {"k": "AAE="}},
    {"kind": "Pod", "apiVersion": "v1", "metadata": META, "spec": {"containers": [CONTAINER], "volumes": VOLUMES, "hostNetwork": True}},
    {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": META,
        "spec": {
            "replicas": 0,
            "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER], "priority": -7}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        },
    },
    {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": META,
        "spec": {"renewTime": "2026-01-02T03:04:05.000678Z", "acquireTime": "1969-12-31T23:59:59.500000Z", "leaseDurationSeconds": 15},
    },
    {
        "kind": "CertificateSigningRequest",
        "apiVersion": "certificates.k8s.io/v1",
        "metadata": META,
        "spec": {"request": "AAE=", "extra": {"scopes": ["a", "b"]}, "groups": ["g"]},
    },
    {"kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": META, "data": {"spec": {"any": [1, None]}}, "revision": 7},
    {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "details": {"causes": [{"message": "m", "field": "f"}]}},
)


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: obj["kind"])
def test_an_object_reads_back_as_it_was(obj):
    read = decode_protobuf(encode_object(obj))
    if "metadata" in read and "metadata" not in obj:
        assert not any(read.pop("metadata").values())
    assert read == obj


def test_what_is_null_is_not_there():
    made = pod()
    assert decode_protobuf(encode_object({**made, "metadata": {"name": "p", "creationTimestamp": None}}))["metadata"] == {"name": "p"}
    assert decode_protobuf(encode_object(deployment()))["spec"]["template"]["spec"]["containers"]


def test_every_kind_of_kubernetes_itself_has_a_form():
    """Those of its extension servers are not in kubectl, where the table comes from."""
    kinds = [kind for kind in KindRegistry.builtin() if "list" in kind.verbs]
    missing = {kind.kind for kind in kinds if not is_encodable(kind.api_version, kind.kind)}
    assert missing == {"CustomResourceDefinition", "APIService"}


def test_a_custom_resource_has_none():
    with pytest.raises(StatusError) as refused:
        encode_object({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {}})
    assert refused.value.code == 406


def test_a_list_and_a_frame():
    metadata = {"resourceVersion": "7", "continue": "t", "remainingItemCount": 0}
    body = encode_list({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata}, "ConfigMap", [OBJECTS[0], OBJECTS[0]])
    item = encode_object(OBJECTS[0]).partition(b"ConfigMap\x12")[2]
    assert body.startswith(b"k8s\0\n\x13\n\x02v1\x12\rConfigMapList\x12")
    assert b"\n\x08\x12\x017\x1a\x01t \0" in body  # ListMeta: 2 resourceVersion, 3 continue, 4 remainingItemCount
    assert body.count(item[2:-4]) == 2
    frame = encode_frame("ADDED", OBJECTS[0])
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert frame[4:].startswith(b"\n\x05ADDED\x12")
    assert frame.endswith(encode_object(OBJECTS[0]))


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/vnd.kubernetes.protobuf", "protobuf"),
        ("application/vnd.kubernetes.protobuf, */*", "json"),
        ("application/vnd.kubernetes.protobuf,application/json", "json"),
        ("application/cbor, application/vnd.kubernetes.protobuf", "protobuf"),
    ],
)
def test_json_goes_to_all_that_take_it(accept, media):
    assert negotiate(accept, frozenset(), binary=True).media == media


@pytest.mark.parametrize(
    ("accept", "binary"), [("application/vnd.kubernetes.protobuf", False), ("application/vnd.kubernetes.protobuf;as=Table", True)]
)
def test_what_has_no_protobuf_form_is_not_acceptable(accept, binary):
    with pytest.raises(StatusError, match="only the following media types are accepted"):
        negotiate(accept, frozenset({"Table"}), binary=binary)
