"""The proxy subresource through kubectl: to a pod, to a service's endpoint, by `kubectl proxy`; and /metrics."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

from atoll.client.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICE_ACCOUNTS, SERVICES
from own_address import own_address


class Backend(BaseHTTPRequestHandler):
    """Says what it was asked, and whether credentials came along."""

    def do_GET(self):
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/there")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        told = json.dumps({"path": self.path, "token": self.headers.get("authorization")}).encode()
        self.send_response(418 if self.path == "/teapot" else 200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def here():
    with own_address() as address:
        yield address


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, here):
    server = ThreadingHTTPServer((here, 0), Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))

    async def fill():
        client, port = cluster.client, server.server_port
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")
        container = {"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": port}]}
        for name, address in (("p", here), ("inward", "127.0.0.1")):
            await client.create(PODS, {"metadata": {"name": name}, "spec": {"containers": [container]}}, "default")
            await client.patch(PODS, name, {"status": {"podIP": address}}, "default", subresource="status")
        for name in ("s", "sliced", "empty"):
            spec = {"ports": [{"name": "http", "port": 80, "targetPort": port}]}
            await client.create(SERVICES, {"metadata": {"name": name}, "spec": spec}, "default")
        subsets = [{"addresses": [{"ip": here}], "ports": [{"name": "http", "port": port}]}]
        await client.create(ENDPOINTS, {"metadata": {"name": "s"}, "subsets": subsets}, "default")
        subsets[0]["addresses"] = [{"ip": "203.0.113.1"}]  # where slices and Endpoints differ, slices count
        await client.create(ENDPOINTS, {"metadata": {"name": "sliced"}, "subsets": subsets}, "default")
        labels = {"kubernetes.io/service-name": "sliced"}
        endpoints = [{"addresses": [here]}, {"addresses": ["203.0.113.1"], "conditions": {"ready": False}}]
        ports = [{"name": "http", "port": port}]
        made = {"metadata": {"name": "sliced-1", "labels": labels}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
        await client.create(ENDPOINT_SLICES, made, "default")

    cluster.run(fill())
    yield cluster
    cluster.close()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=KUBECTLS, ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(request.param, cluster.admin())


def test_pods_and_services_answer_through_the_server(kubectl):
    base = "/api/v1/namespaces/default"
    for name in ("pods/p", "pods/p:web", "pods/http:p:web", "services/s", "services/s:http", "services/http:s:80", "services/sliced:http"):
        assert json.loads(kubectl("get", "--raw", f"{base}/{name}/proxy/a/b%20c?d=e")) == {"path": "/a/b%20c?d=e", "token": None}
    assert "no endpoints available for service" in kubectl.fails("get", "--raw", f"{base}/services/empty/proxy/")
    assert "no service port" in kubectl.fails("get", "--raw", f"{base}/services/s:81/proxy/")
    assert "neither a number nor the name of a port" in kubectl.fails("get", "--raw", f"{base}/pods/p:0/proxy/")
    assert "not found" in kubectl.fails("get", "--raw", f"{base}/pods/none/proxy/")
    assert "address not allowed" in kubectl.fails("get", "--raw", f"{base}/pods/inward:web/proxy/")


def test_a_server_on_loopback_publishes_no_endpoints(cluster):
    assert not cluster.run(cluster.client.get(ENDPOINTS, "kubernetes", "default")).get("subsets")
    assert not cluster.run(cluster.client.get(ENDPOINT_SLICES, "kubernetes", "default")).get("endpoints")


def test_kubectl_proxy_serves_the_api_and_what_is_behind_it(kubectl):
    command = [str(kubectl._binary), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kubectl._env) as proxy:
        try:
            port = re.search(r":(\d+)", proxy.stdout.readline())[1]
            base = f"http://127.0.0.1:{port}"
            with urlopen(f"{base}/api/v1/namespaces/default/services/s/proxy", timeout=10) as answer:
                assert json.loads(answer.read())["path"] == "/"
            with urlopen(f"{base}/api/v1/namespaces/default/services/s/proxy/away", timeout=10) as answer:
                assert json.loads(answer.read())["path"] == "/there"
            with urlopen(f"{base}/version", timeout=10) as answer:
                assert json.loads(answer.read())["major"] == "1"
        finally:
            proxy.terminate()


def test_metrics_in_prometheus_text(kubectl):
    text = kubectl("get", "--raw", "/metrics")
    assert re.search(r'^apiserver_request_total\{method="GET",code="200"\} \d+$', text, re.MULTILINE)
    assert 'apiserver_storage_objects{resource="pods"} 2\n' in text
    assert all(line.startswith("#") or re.fullmatch(r"[a-z_]+(\{.*\})? [0-9.e+-]+", line) for line in text.splitlines())
