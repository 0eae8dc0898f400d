"""[sig-cli] The genuine kubectl against the control plane."""

import base64
import http.client
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml
from conformance_api import until
from conformance_workloads import IMAGE, controller, pod_spec, workload

from atoll.client.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICATION_CONTROLLERS, SERVICES
from cluster_harness import KUBECTLS

READY_S = 15


class Kubectl:
    def __init__(self, plane, ns) -> None:
        self.command = [KUBECTLS[0], "--kubeconfig", str(plane.instance.kubeconfig), "-n", ns]

    def run(self, *words, given=None):
        body = None if given is None else json.dumps(given)
        return subprocess.run([*self.command, *words], input=body, capture_output=True, text=True, timeout=60, check=False)

    def __call__(self, *words, given=None):
        done = self.run(*words, given=given)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


@pytest.fixture
def kubectl(plane, ns):
    return Kubectl(plane, ns)


@pytest.fixture
def controllers(api, ns):
    return api.at(REPLICATION_CONTROLLERS, ns)


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


def primary(controllers, replicas=1):
    controllers.new(
        "agnhost-primary",
        labels={"app": "agnhost", "role": "primary"},
        spec=controller({"app": "agnhost", "role": "primary"}, replicas=replicas),
    )
    controllers.until("agnhost-primary", lambda found: found["status"].get("readyReplicas") == replicas)


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]")
def test_api_versions(kubectl):
    assert "v1" in kubectl("api-versions").splitlines()


@pytest.mark.conformance(
    "[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info "
    "[Conformance]"
)
def test_cluster_info(kubectl):
    told = kubectl("cluster-info", "-n", "kube-system")
    assert "Kubernetes control plane" in told
    assert "CoreDNS" in told
    assert told.count("is running at") == 2


def test_where_the_cluster_is_anyone_may_know(api, plane):
    found = api.at(CONFIG_MAPS, "kube-public").get("cluster-info")
    [cluster] = yaml.safe_load(found["data"]["kubeconfig"])["clusters"]
    assert cluster["cluster"]["server"] == plane.settings.server
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode())
    base = f"{plane.settings.server}/api/v1/namespaces/kube-public/configmaps"
    with urlopen(f"{base}/cluster-info", context=context, timeout=READY_S) as answer:
        assert json.load(answer)["data"] == found["data"]
    with pytest.raises(HTTPError, match="403"):
        urlopen(base, context=context, timeout=READY_S)


def test_the_parts_of_the_control_plane_are_well(kubectl):
    rows = {line.split()[0]: line.split()[1:] for line in kubectl("get", "componentstatuses", "--no-headers").splitlines()}
    assert rows == {name: ["Healthy", "ok"] for name in ("scheduler", "controller-manager", "etcd-0")}
    assert kubectl("get", "cs", "etcd-0", "-o", "jsonpath={.conditions[0].type}") == "Healthy"
    assert kubectl("get", "cs", "--field-selector=metadata.name=scheduler", "-o", "name") == "componentstatus/scheduler\n"
    with pytest.raises(AssertionError, match='componentstatuses "none" not found'):
        kubectl("get", "cs", "none")


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]")
def test_version(kubectl):
    told = kubectl("version")
    assert re.search(r"Client Version: v\d", told)
    assert re.search(r"Server Version: v\d", told)
    fields = json.loads(kubectl("version", "-o", "json"))["serverVersion"]
    for name in ("major", "minor", "gitCommit", "goVersion", "compiler", "platform", "buildDate", "gitVersion"):
        assert name in fields


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]")
def test_expose(api, ns, kubectl, controllers):
    primary(controllers)
    kubectl("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
    kubectl("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
    services = api.at(SERVICES, ns)
    for name, port in (("rm2", 1234), ("rm3", 2345)):
        (found,) = services.get(name)["spec"]["ports"]
        assert (found["port"], found["targetPort"]) == (port, 6379)
        path = f"/api/v1/namespaces/{ns}/endpoints/{name}"
        until(lambda path=path: api.request("GET", path).code == 200 and api.get(path).get("subsets"), f"endpoints of {name}")


@pytest.mark.conformance(
    "[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]"
)
def test_describe(ns, kubectl, controllers, pods):
    primary(controllers)
    pod = pods.names()[0]
    for words, expected in (
        (
            ("pod", pod),
            (
                "Name:",
                "Namespace:",
                "Node:",
                "Labels:",
                "app=agnhost",
                "Status:",
                "Running",
                "IP:",
                "Controlled By:",
                "Image:",
                "State:",
                "QoS Class:",
            ),
        ),
        (
            ("rc", "agnhost-primary"),
            (
                "Name:",
                "Selector:",
                "app=agnhost,role=primary",
                "Annotations:",
                "Replicas:",
                "1 current",
                "1 desired",
                "Pods Status:",
                "1 Running",
                "Pod Template:",
                "Image:",
                "Events:",
            ),
        ),
        (
            ("node", "node-a"),
            (
                "Name:",
                "Labels:",
                "Annotations:",
                "CreationTimestamp:",
                "Conditions:",
                "Type",
                "Addresses:",
                "Capacity:",
                "Version:",
                "Kubelet Version:",
                "Pods:",
            ),
        ),
        (("namespace", ns), ("Name:", "Labels:", "Annotations:", "Status:", "Active")),
    ):
        told = kubectl("describe", *words)
        assert [each for each in expected if each not in told] == [], told


@pytest.mark.conformance(
    "[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]"
)
def test_diff(api, ns, kubectl):
    deployments = api.at(DEPLOYMENTS, ns)
    body = deployments.make("httpd-deployment", spec=workload({"app": "httpd"}))
    kubectl("create", "-f", "-", given=body)
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox:1"
    done = kubectl.run("diff", "-f", "-", given=body)
    assert done.returncode == 1, done.stderr
    assert re.search(rf"^-.*image: {re.escape(IMAGE)}$", done.stdout, re.MULTILINE)
    assert re.search(r"^\+.*image: busybox:1$", done.stdout, re.MULTILINE)


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]")
def test_label(kubectl, pods):
    pods.new("pause", spec=pod_spec())
    kubectl("label", "pods", "pause", "testing-label=testing-label-value")
    assert "testing-label-value" in kubectl("get", "pod", "pause", "-L", "testing-label")
    kubectl("label", "pods", "pause", "testing-label-")
    assert "testing-label-value" not in kubectl("get", "pod", "pause", "-L", "testing-label")


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]")
def test_patch(kubectl, controllers, pods):
    primary(controllers)
    for name in pods.names(labelSelector="app=agnhost"):
        kubectl("patch", "pod", name, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    assert [pod["metadata"]["annotations"]["x"] for pod in pods.items()] == ["y"]


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]")
def test_replace(kubectl, pods):
    kubectl("run", "e2e-test-httpd-pod", f"--image={IMAGE}", "--labels=run=e2e-test-httpd-pod")
    pods.until("e2e-test-httpd-pod", lambda pod: pod["status"]["phase"] == "Running")
    body = json.loads(kubectl("get", "pod", "e2e-test-httpd-pod", "-o", "json"))
    body["spec"]["containers"][0]["image"] = "busybox:1"
    kubectl("replace", "-f", "-", given=body)
    assert pods.get("e2e-test-httpd-pod")["spec"]["containers"][0]["image"] == "busybox:1"


@pytest.mark.conformance("[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]")
def test_run(kubectl, pods):
    kubectl("run", "e2e-test-httpd-pod", "--restart=Never", f"--image={IMAGE}")
    spec = pods.get("e2e-test-httpd-pod")["spec"]
    assert (spec["restartPolicy"], spec["containers"][0]["image"]) == ("Never", IMAGE)


@pytest.mark.conformance(
    "[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]"
)
def test_dry_run(kubectl, pods):
    kubectl("run", "e2e-test-httpd-pod", f"--image={IMAGE}")
    patch = '{"spec":{"containers":[{"name": "e2e-test-httpd-pod","image": "busybox:1"}]}}'
    kubectl("patch", "pod", "e2e-test-httpd-pod", "-p", patch, "--dry-run=server")
    assert pods.get("e2e-test-httpd-pod")["spec"]["containers"][0]["image"] == IMAGE


def running(pods, count, selector="name=update-demo"):
    def asked():
        found = pods.items(labelSelector=selector)
        return len(found) == count and all(pod["status"]["phase"] == "Running" for pod in found)

    until(asked, f"{count} pods run")


NAUTILUS = {"name": "update-demo"}


@pytest.mark.conformance("[sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]")
def test_a_controller_is_created_and_stopped(kubectl, controllers, pods):
    body = controllers.make("update-demo-nautilus", spec=controller(NAUTILUS, replicas=2))
    kubectl("create", "-f", "-", given=body)
    running(pods, 2)
    template = "{{range.items}}{{.metadata.name}} {{end}}"
    told = kubectl("get", "pods", "-o", "template", f"--template={template}", "-l", "name=update-demo")
    assert sorted(told.split()) == sorted(pods.names())
    kubectl("delete", "--grace-period=0", "--force", "-f", "-", given=body)
    until(lambda: not kubectl("get", "rc,svc", "-l", "name=update-demo", "--no-headers") and not pods.names())


@pytest.mark.conformance("[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]")
def test_a_controller_is_scaled(kubectl, controllers, pods):
    kubectl("create", "-f", "-", given=controllers.make("update-demo-nautilus", spec=controller(NAUTILUS, replicas=2)))
    for count in (1, 2):
        kubectl("scale", "rc", "update-demo-nautilus", f"--replicas={count}", "--timeout=5m")
        running(pods, count)


@contextmanager
def proxy(kubectl, *words):
    """`kubectl proxy`, and the line it says when it listens."""
    process = subprocess.Popen([*kubectl.command, "proxy", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], READY_S)[0], "kubectl proxy says nothing"
        yield process.stdout.readline().decode()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_S)
        process.stdout.close()


@pytest.mark.conformance("[sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]")
def test_a_proxy_on_any_port(kubectl):
    with proxy(kubectl, "-p", "0", "--disable-filter") as told:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", told)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
        connection.request("GET", "/api/")
        assert json.loads(connection.getresponse().read())["versions"]
        connection.close()


@pytest.mark.conformance("[sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]")
def test_a_proxy_on_a_socket(kubectl, tmp_path):
    path = tmp_path / "test"
    with proxy(kubectl, f"--unix-socket={path}") as told:
        assert str(path) in told
        connection = http.client.HTTPConnection("localhost", timeout=READY_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/api/")
        assert json.loads(connection.getresponse().read())["versions"]
        connection.close()
