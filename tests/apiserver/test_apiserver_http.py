"""The server over real sockets, by the PyPI client and by hand: forms, statuses, and what a hostile client is told."""

from __future__ import annotations

import http.client
import json
import ssl
import time

import pytest
from apiserver_tools import STATIC_TOKEN, Cluster

from atoll.apiserver.auth.jwt import TokenSigner
from atoll.apiserver.machinery.protobuf import decode_protobuf


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def python_client(cluster):
    from kubernetes import client, config

    config.load_kube_config(str(cluster.admin()))
    with client.ApiClient() as api:
        yield api


class Raw:
    """Requests by hand, with an administrator's certificate, a token, or nothing."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        cluster.admin()

    def __call__(self, method, path, body=None, *, headers=None, token=None, certificate=True):
        context = ssl.create_default_context(cafile=self._cluster.home / "ca.crt")
        if certificate and token is None:
            context.load_cert_chain(self._cluster.home / "admin.crt", self._cluster.home / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self._cluster.port, context=context, timeout=10)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, *args, **kwargs):
        status, _, body = self(*args, **kwargs)
        return status, json.loads(body)


@pytest.fixture
def raw(cluster):
    return Raw(cluster)


CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


def test_the_python_client(python_client, tmp_path):
    from kubernetes import client, utils, watch

    core = client.CoreV1Api(python_client)
    manifest = tmp_path / "m.yaml"
    manifest.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: py}\ndata: {a: b}\n")
    utils.create_from_yaml(python_client, str(manifest))
    assert core.read_namespaced_config_map("py", "default").data == {"a": "b"}
    since = core.list_namespaced_config_map("default").metadata.resource_version
    core.patch_namespaced_config_map("py", "default", {"data": {"a": "c"}})
    core.delete_namespaced_config_map("py", "default")
    watching = watch.Watch()
    seen = []
    for event in watching.stream(core.list_namespaced_config_map, "default", resource_version=since, timeout_seconds=5):
        seen.append((event["type"], event["object"].data["a"]))
        if len(seen) == 2:
            watching.stop()
    assert seen == [("MODIFIED", "c"), ("DELETED", "c")]
    assert {namespace.metadata.name for namespace in core.list_namespace().items} >= {
        "default",
        "kube-system",
        "kube-public",
        "kube-node-lease",
    }
    service = core.read_namespaced_service("kubernetes", "default")
    assert service.spec.cluster_ip == "10.96.0.1"
    with pytest.raises(client.ApiException) as missing:
        core.read_namespaced_pod("none", "default")
    assert missing.value.status == 404


def test_nobody_sees_health_and_version_and_no_more(raw):
    for path in ("/livez", "/readyz", "/healthz", "/version"):
        assert raw("GET", path, certificate=False)[0] == 200
    status, body = raw.json("GET", "/api/v1/namespaces", certificate=False)
    assert (status, body["reason"]) == (403, "Forbidden")
    assert body["message"].startswith('namespaces is forbidden: User "system:anonymous" cannot list resource "namespaces"')
    assert raw("GET", "/api", certificate=False)[0] == 403


def test_tokens_that_are_not_good(raw, cluster):
    signer = TokenSigner((cluster.home / "sa.key").read_bytes())
    stranger = TokenSigner((cluster.home / "server.key").read_bytes())
    issuer = "https://kubernetes.default.svc.cluster.local"
    account = {"namespace": "default", "serviceaccount": {"name": "none", "uid": "x"}}
    good = {"iss": issuer, "aud": [issuer], "exp": 1 << 40, "nbf": 0, "kubernetes.io": account}
    tokens = [
        "none",
        "a.b.c",
        "x" * 20_000,
        signer.sign(good),  # an account that does not exist
        stranger.sign(good),
        signer.sign({**good, "exp": 1}),
        signer.sign({**good, "aud": ["vault"]}),
        signer.sign({**good, "aud": issuer + "x"}),
        signer.sign({**good, "iss": "other"}),
        signer.sign({}),
        "eyJhbGciOiJub25lIn0." + signer.sign(good).split(".")[1] + ".",
    ]
    for token in tokens:
        status, body = raw.json("GET", "/api/v1/namespaces", token=token)
        assert (status, body["message"]) == (401, "Unauthorized"), token[:40]
    assert raw("GET", "/api", token=STATIC_TOKEN)[0] == 200
    assert raw("GET", "/api/v1/nodes", token=STATIC_TOKEN)[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code"),
    [
        ("POST", CONFIGMAPS, b"{", {"Content-Type": "application/json"}, 400),
        ("POST", CONFIGMAPS, b"", {"Content-Type": "application/json"}, 400),
        ("POST", CONFIGMAPS, [], {}, 400),
        ("POST", CONFIGMAPS, {"kind": "Pod", "metadata": {"name": "a"}}, {}, 400),
        ("POST", CONFIGMAPS, {"apiVersion": "v2", "metadata": {"name": "a"}}, {}, 400),
        ("POST", CONFIGMAPS, {"metadata": []}, {}, 400),
        ("POST", CONFIGMAPS, {"metadata": {"name": "a", "namespace": "kube-system"}}, {}, 400),
        ("POST", CONFIGMAPS, {"metadata": {"name": "a", "resourceVersion": "1"}}, {}, 400),
        ("POST", CONFIGMAPS, {"metadata": {}}, {}, 422),
        ("POST", CONFIGMAPS, {"metadata": {"name": "a" * 254}}, {}, 422),
        ("POST", CONFIGMAPS, {"metadata": {"name": "../x"}}, {}, 422),
        ("POST", CONFIGMAPS, b'{"a":' * 5000, {"Content-Type": "application/json"}, 400),
        ("POST", CONFIGMAPS, b"x", {"Content-Type": "text/plain"}, 415),
        ("POST", CONFIGMAPS + "?dryRun=Maybe", {"metadata": {"name": "a"}}, {}, 400),
        ("POST", CONFIGMAPS + "?fieldValidation=Maybe", {"metadata": {"name": "a"}}, {}, 400),
        ("POST", CONFIGMAPS + "?fieldValidation=Strict", {"metadata": {"name": "a"}, "foo": 1}, {}, 400),
        ("POST", CONFIGMAPS, {"metadata": {"name": "big"}, "data": {"x": "y" * 3_200_000}}, {}, 413),
        ("POST", CONFIGMAPS + "/a", {"metadata": {"name": "a"}}, {}, 405),
        ("PUT", CONFIGMAPS, {}, {}, 405),
        ("PUT", CONFIGMAPS + "/none", {"metadata": {"name": "none"}}, {}, 404),
        ("PUT", CONFIGMAPS + "/one", {"metadata": {"name": "other"}}, {}, 400),
        ("OPTIONS", CONFIGMAPS, None, {}, 405),
        ("POST", "/api/v1/watch/namespaces/default/configmaps", {"metadata": {"name": "a"}}, {}, 405),
        ("PATCH", CONFIGMAPS + "/none", {}, {"Content-Type": "application/merge-patch+json"}, 404),
        ("PATCH", CONFIGMAPS + "/none", {}, {"Content-Type": "application/json"}, 415),
        ("GET", CONFIGMAPS, None, {"Accept": "application/cbor"}, 406),
        ("GET", CONFIGMAPS + "?limit=x", None, {}, 400),
        ("GET", CONFIGMAPS + "?continue=x", None, {}, 400),
        ("GET", CONFIGMAPS + "?resourceVersion=x", None, {}, 400),
        ("GET", CONFIGMAPS + "?labelSelector=a%20b", None, {}, 400),
        ("GET", CONFIGMAPS + "?watch=1&sendInitialEvents=true", None, {}, 422),
        ("GET", "/api/v1/namespaces/default/nothing", None, {}, 404),
        ("GET", "/api/v1/configmaps/a", None, {}, 404),
        ("GET", "/api/v1/namespaces/default/nodes", None, {}, 404),
        ("GET", "/api/v1/namespaces/default/pods/x/nothing", None, {}, 404),
        ("GET", "/apis/none/v1", None, {}, 404),
        ("GET", "/%ff%00/..", None, {}, 404),
        ("POST", "/version", {}, {}, 405),
        ("DELETE", CONFIGMAPS + "/none", {"propagationPolicy": "Maybe"}, {}, 400),
        ("DELETE", CONFIGMAPS + "/none", {"preconditions": []}, {}, 404),
        ("GET", "/api/v1/namespaces/default/pods/none/log", None, {}, 404),
        ("GET", "/api/v1/namespaces", None, {"Impersonate-Group": "x"}, 400),
        ("GET", "/api/v1/namespaces", None, {"Impersonate-Extra-scopes": "x"}, 400),
    ],
)
def test_bad_requests(raw, method, path, body, headers, code):
    status, answer = raw.json(method, path, body, headers=headers)
    assert status == code, answer
    assert answer["kind"] == "Status"
    assert answer["code"] == code
    assert "Traceback" not in answer["message"]


def test_warnings_and_forms(raw):
    status, headers, _ = raw("POST", CONFIGMAPS, {"metadata": {"name": "forms"}, "data": {"a": "b"}, "foo": 1})
    assert status == 201
    assert headers["Warning"] == '299 - "unknown field \\"foo\\""'
    status, headers, body = raw("GET", CONFIGMAPS + "/forms", headers={"Accept": "application/yaml"})
    assert headers["Content-Type"] == "application/yaml"
    assert b"kind: ConfigMap\n" in body
    _, partial = raw.json("GET", CONFIGMAPS, headers={"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"})
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "data" not in partial["items"][0]
    _, table = raw.json("GET", CONFIGMAPS, headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1,application/json"})
    assert table["kind"] == "Table"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    _, plain = raw.json("GET", CONFIGMAPS, headers={"Accept": "application/vnd.kubernetes.protobuf, */*"})
    assert plain["kind"] == "ConfigMapList"
    binary = {"Accept": "application/vnd.kubernetes.protobuf"}
    status, headers, body = raw("GET", CONFIGMAPS + "/forms", headers=binary)
    assert headers["Content-Type"] == "application/vnd.kubernetes.protobuf"
    assert decode_protobuf(body)["metadata"]["name"] == "forms"
    _, headers, body = raw("DELETE", CONFIGMAPS + "/forms", headers=binary)
    assert decode_protobuf(body)["status"] == "Success"
    refused, _, body = raw("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", headers=binary)
    assert refused == 406
    assert b"only the following media types are accepted: application/json, application/yaml" in body


def test_discovery_is_kept_by_its_hash(raw):
    aggregated = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"}
    status, headers, body = raw("GET", "/apis", headers=aggregated)
    assert headers["Content-Type"].endswith("as=APIGroupDiscoveryList")
    assert {group["metadata"]["name"] for group in json.loads(body)["items"]} >= {"apps", "batch", "rbac.authorization.k8s.io"}
    assert raw("GET", "/apis", headers={**aggregated, "If-None-Match": headers["Etag"] if "Etag" in headers else headers["ETag"]})[0] == 304
    index = raw.json("GET", "/openapi/v3")[1]["paths"]
    address = index["apis/apps/v1"]["serverRelativeURL"]
    status, headers, body = raw("GET", address)
    assert status == 200
    assert "immutable" in headers["Cache-Control"]
    assert "components" in json.loads(body)


def test_the_service_of_the_api_comes_back(raw):
    path = "/api/v1/namespaces/default/services/kubernetes"
    before = raw.json("GET", path)[1]["metadata"]["uid"]
    assert raw("DELETE", path)[0] == 200
    deadline = time.monotonic() + 5
    while (answer := raw.json("GET", path))[0] == 404 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answer[0] == 200
    assert answer[1]["metadata"]["uid"] != before
    assert answer[1]["spec"]["clusterIP"] == "10.96.0.1"


def test_a_streaming_list_ends_with_its_bookmark(raw):
    query = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    _, _, body = raw("GET", "/api/v1/namespaces" + query)
    events = [json.loads(line) for line in body.splitlines()]
    assert [event["type"] for event in events[:4]] == ["ADDED"] * 4
    assert events[4]["type"] == "BOOKMARK"
    assert events[4]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_timeout_of_the_clients_own(raw):
    assert raw.json("GET", f"{CONFIGMAPS}?timeout=5s")[0] == 200
    status, told = raw.json("GET", f"{CONFIGMAPS}?timeout=soon")
    assert (status, told["message"]) == (400, 'invalid timeout specified in the request URL - "soon"')
    status, told = raw.json("GET", f"{CONFIGMAPS}?timeout=10ms&resourceVersion=999999")
    assert (status, told["reason"]) == (504, "Timeout")
