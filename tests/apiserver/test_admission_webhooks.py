"""Webhooks over TLS, asked by the server for what kubectl does: they change, refuse, fail, are passed over, and are not asked by others."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import ClassVar

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

NUMBERS = count()


class Hooks(BaseHTTPRequestHandler):
    """/mutate labels, /deny refuses, /count only counts, /broken answers no review, /later asks to be heard again."""

    reviews: ClassVar[list[dict]] = []

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        self.reviews.append({"path": path, **review["request"]})
        response = {"uid": review["request"]["uid"], "allowed": path != "/deny"}
        if path == "/deny":
            response |= {"status": {"code": 403, "message": "not today"}, "warnings": ["think twice"]}
        if path.startswith("/mutate"):
            labels = (review["request"]["object"]["metadata"].get("labels") or {}) | {path[1:]: str(review["request"]["dryRun"]).lower()}
            patch = [
                {"op": "add", "path": "/metadata/labels", "value": labels},
                {"op": "replace", "path": "/metadata/name", "value": "other"},
            ]
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        body = b"nothing" if path == "/broken" else json.dumps({"apiVersion": review["apiVersion"], "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def hooks(cluster):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cluster.home / "server.crt", cluster.home / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hooks)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=KUBECTLS, ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(request.param, cluster.admin())


@pytest.fixture
def namespace(kubectl):
    name = f"hooks{next(NUMBERS)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, f"hooked={name}")
    Hooks.reviews.clear()
    yield name
    kubectl("delete", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "--all")
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def configure(kubectl, namespace, cluster, hooks):
    def make(kind, *paths, operations=("CREATE",), base=hooks, **fields):
        webhooks = [
            {
                "name": f"h{number}.example.com",
                "clientConfig": {"url": base + path, "caBundle": base64.b64encode((cluster.home / "ca.crt").read_bytes()).decode()},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": list(operations)}],
                "namespaceSelector": {"matchLabels": {"hooked": namespace}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                **fields,
            }
            for number, path in enumerate(paths)
        ]
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration", "webhooks": webhooks}
        return kubectl.run("create", "-f", "-", stdin=json.dumps(body | {"metadata": {"name": f"{namespace}-{kind.lower()}"}}))

    return make


def test_a_mutating_webhook_changes_what_is_stored(kubectl, namespace, configure):
    assert configure("Mutating", "/mutate-a", "/mutate-b", reinvocationPolicy="IfNeeded").returncode == 0
    kubectl("create", "configmap", "c", "-n", namespace)
    stored = json.loads(kubectl("get", "cm", "c", "-n", namespace, "-o", "json"))
    assert stored["metadata"]["labels"] == {"mutate-a": "false", "mutate-b": "false"}
    assert [review["path"] for review in Hooks.reviews] == ["/mutate-a", "/mutate-b", "/mutate-a"]
    first = Hooks.reviews[0]
    assert first["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (first["operation"], first["namespace"], first["name"], first["userInfo"]["username"]) == ("CREATE", namespace, "c", "admin")
    kubectl("create", "configmap", "d", "-n", namespace, "--dry-run=server")
    assert Hooks.reviews[-1]["dryRun"] is True


def test_a_validating_webhook_refuses_with_its_words(kubectl, namespace, configure):
    kubectl("create", "configmap", "old", "-n", namespace)
    assert configure("Validating", "/count", "/deny", operations=("CREATE", "DELETE")).returncode == 0
    refused = kubectl.fails("create", "configmap", "c", "-n", namespace)
    assert 'admission webhook "h1.example.com" denied the request: not today' in refused
    assert "denied the request" in kubectl.fails("delete", "configmap", "old", "-n", namespace)
    assert Hooks.reviews[-1]["object"] is None
    assert Hooks.reviews[-1]["oldObject"]["metadata"]["name"] == "old"
    kubectl("label", "cm", "old", "a=b", "-n", namespace)
    kubectl("create", "configmap", "c", "-n", "default")
    kubectl("delete", "configmap", "c", "-n", "default")


def test_an_object_selector_and_a_failure_that_may_be_ignored(kubectl, namespace, configure):
    selector = {"matchLabels": {"look": "here"}}
    assert configure("Validating", "/deny", operations=("CREATE", "UPDATE"), objectSelector=selector).returncode == 0
    kubectl("create", "configmap", "c", "-n", namespace)
    assert "denied" in kubectl.fails("label", "configmap", "c", "look=here", "-n", namespace)
    assert configure("Mutating", "/broken", failurePolicy="Ignore").returncode == 0
    kubectl("create", "configmap", "d", "-n", namespace)


def test_a_failure_that_may_not(kubectl, namespace, configure):
    assert configure("Validating", "/nowhere", base="https://127.0.0.1:1").returncode == 0
    told = kubectl.fails("create", "configmap", "c", "-n", namespace)
    assert 'Internal error occurred: failed calling webhook "h0.example.com": failed to call webhook' in told
    kubectl("create", "secret", "generic", "s", "-n", namespace)


def test_a_service_that_is_missing(kubectl, namespace, configure):
    service = {"service": {"name": "hook", "namespace": namespace, "path": "/x"}}
    assert configure("Validating", "/x", clientConfig=service).returncode == 0
    assert 'service "hook" not found' in kubectl.fails("create", "configmap", "c", "-n", namespace)


def test_match_conditions(kubectl, namespace, configure):
    conditions = [
        {"name": "small", "expression": "object.metadata.name.startsWith('s')"},
        {"name": "user", "expression": "request.userInfo.username == 'admin'"},
    ]
    assert configure("Validating", "/deny", matchConditions=conditions).returncode == 0
    kubectl("create", "configmap", "big", "-n", namespace)
    assert "denied the request" in kubectl.fails("create", "configmap", "small", "-n", namespace)
    broken = configure("Mutating", "/x", matchConditions=[{"name": "n", "expression": "object."}])
    assert "webhooks[0].matchConditions[0].expression: Invalid value" in broken.stderr
    assert configure("Mutating", "/x", matchConditions=[{"name": "n", "expression": "object.none.none == 1"}]).returncode == 0
    told = kubectl.fails("create", "configmap", "other", "-n", namespace)
    assert 'failed evaluating matchConditions of webhook "h0.example.com": n: no such key: none' in told


def test_streams_are_connections(kubectl, namespace, configure):
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/*"], "operations": ["CONNECT"]}]
    kubectl("create", "serviceaccount", "default", "-n", namespace)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}}
    kubectl("create", "-f", "-", stdin=json.dumps({**pod, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}}))
    assert configure("Validating", "/deny", rules=rules).returncode == 0
    path = f"/api/v1/namespaces/{namespace}/pods/p/exec?command=ls&stdout=true"
    assert "denied the request: not today" in kubectl.fails("create", "--raw", path, "-f", "-", stdin="{}")
    review = Hooks.reviews[-1]
    assert (review["operation"], review["subResource"], review["kind"]["kind"]) == ("CONNECT", "exec", "PodExecOptions")
    assert review["object"]["command"] == ["ls"]
