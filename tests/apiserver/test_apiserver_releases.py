"""kubectl of five years, from 1.20 to the newest: each verb whose requests have changed over the releases."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import urllib.request

import pytest
from apiserver_tools import Cluster, Kubectl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from helm_tools import kubectl as kubectl_of

from atoll.client.resources import DEPLOYMENTS

RELEASES = ("1.20", "1.32", "newest")
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: %s
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: nginx, ports: [{containerPort: 80}]}]}
"""
READER = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: %s}
rules: [{apiGroups: [""], resources: [pods], verbs: [%s]}]
"""
READS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reads, namespace: %s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: User, name: amy, apiGroup: rbac.authorization.k8s.io}]
"""
NODE = """\
apiVersion: v1
kind: Node
metadata: {name: %s}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: %s}
spec: {nodeName: %s, containers: [{name: c, image: x}]}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module", params=RELEASES)
def kubectl(request, cluster):
    binary = kubectl_of(request.param)
    if binary is None:
        pytest.skip(f"no kubectl {request.param} to be had")
    return Kubectl(binary, cluster.admin())


@pytest.fixture(scope="module")
def is_old(kubectl):
    return json.loads(kubectl("version", "-o", "json"))["clientVersion"]["minor"] == "20"


@pytest.fixture(scope="module")
def namespace(kubectl):
    name = f"release-{json.loads(kubectl('version', '-o', 'json'))['clientVersion']['minor']}"
    kubectl("create", "namespace", name)
    kubectl("create", "serviceaccount", "default", "-n", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def become_available(cluster, namespace):
    """What the deployment controller would tell, were there one."""

    patch = {"status": {"conditions": [{"type": "Available", "status": "True", "reason": "Test", "message": ""}]}}
    cluster.run(cluster.client.patch(DEPLOYMENTS, "web", patch, namespace, subresource="status"))


def test_what_is_served(kubectl):
    resources = kubectl("api-resources", "--no-headers")
    assert re.search(r"^deployments +deploy +apps/v1 +true +Deployment", resources, re.MULTILINE)
    verbs = kubectl("api-resources", "--api-group=policy", "--namespaced", "-o", "name", "--verbs=watch")
    assert verbs == "poddisruptionbudgets.policy\n"
    assert {"v1", "apps/v1", "batch/v1", "policy/v1"} <= set(kubectl("api-versions").split())
    assert json.loads(kubectl("get", "--raw", "/apis/apps/v1"))["groupVersion"] == "apps/v1"
    assert "is running at" in kubectl("cluster-info")


def test_explain(kubectl):
    field = kubectl("explain", "deployment.spec.strategy")
    assert "Deployment" in field
    assert re.search(r"maxSurge|rollingUpdate", field)
    assert re.search(r"FIELD: +replicas <integer>", kubectl("explain", "deploy.spec.replicas"))
    assert re.search(r"containerPort\t<integer>", kubectl("explain", "pod.spec.containers", "--recursive"))
    assert 'field "nothing" does not exist' in kubectl.fails("explain", "pod.spec.nothing")


def test_diff_and_apply(kubectl, namespace, is_old):
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % 2) == "deployment.apps/web created\n"
    shown = kubectl.run("diff", "-n", namespace, "-f", "-", stdin=WEB % 3)
    assert shown.returncode == 1, shown.stderr
    changed = [line for line in shown.stdout.splitlines() if re.match(r"[+-] ", line)]
    assert [line.strip() for line in changed] == ["-  generation: 1", "+  generation: 2", "-  replicas: 2", "+  replicas: 3"]
    assert kubectl("diff", "-n", namespace, "-f", "-", stdin=WEB % 2) == ""
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % 3) == "deployment.apps/web configured\n"
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=WEB % 3) == "deployment.apps/web unchanged\n"
    wrong = kubectl.fails("apply", "-n", namespace, "-f", "-", stdin=WEB % 3 + "  extra: 1\n")
    assert 'unknown field "extra"' in wrong if is_old else 'unknown field "spec.extra"' in wrong


def test_apply_on_the_server(kubectl, namespace):
    apply = ["apply", "--server-side", "-n", namespace, "-f", "-"]
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {k: '%s'}\n"
    assert kubectl(*apply, stdin=manifest % 1) == "configmap/owned serverside-applied\n"
    refused = kubectl.fails(*apply, "--field-manager=other", stdin=manifest % 2)
    assert 'conflict with "kubectl": .data.k' in refused
    kubectl(*apply, "--field-manager=other", "--force-conflicts", stdin=manifest % 2)
    assert kubectl("get", "cm", "owned", "-n", namespace, "-o", "jsonpath={.data.k}") == "2"
    diff = kubectl.run("diff", "--server-side", "--field-manager=other", "-n", namespace, "-f", "-", stdin=manifest % 3)
    assert '-  k: "2"\n+  k: "3"' in diff.stdout


def test_change_in_every_way(kubectl, namespace, tmp_path):
    at = ["-n", namespace]
    kubectl("create", "cm", "a", "--from-literal=k=old", *at)
    kubectl("patch", "cm", "a", "-p", '{"data":{"x":"1"}}', *at)
    kubectl("patch", "cm", "a", "--type=merge", "-p", '{"data":{"y":"2"}}', *at)
    kubectl("patch", "cm", "a", "--type=json", "-p", '[{"op":"remove","path":"/data/x"}]', *at)
    kubectl("label", "cm", "a", "tier=1", *at)
    assert "--overwrite is false" in kubectl.fails("label", "cm", "a", "tier=2", *at)
    kubectl("label", "cm", "a", "tier=2", "--overwrite", *at)
    kubectl("annotate", "cm", "a", "note=1", *at)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/old/new/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl("edit", "cm", "a", *at, env={"EDITOR": str(editor)})
    found = json.loads(kubectl("get", "cm", "a", *at, "-o", "json"))
    assert found["data"] == {"k": "new", "y": "2"}
    assert (found["metadata"]["labels"], found["metadata"]["annotations"]) == ({"tier": "2"}, {"note": "1"})
    assert re.search(r"^Data\n====", kubectl("describe", "cm", "a", *at), re.MULTILINE)
    kubectl("delete", "cm", "a", *at)
    # Old ones call waiting for what has gone an error.
    gone = kubectl.run("wait", "--for=delete", "cm/a", "--timeout=5s", *at)
    assert gone.returncode == 0 or gone.stderr == "error: no matching resources found\n"


def test_workloads(kubectl, cluster, namespace):
    at = ["-n", namespace]
    kubectl("apply", "-f", "-", *at, stdin=WEB % 2)
    assert kubectl("scale", "deploy/web", "--replicas=1", *at) == "deployment.apps/web scaled\n"
    kubectl("set", "env", "deploy/web", "A=b", *at)
    kubectl("rollout", "restart", "deploy/web", *at)
    kubectl("rollout", "pause", "deploy/web", *at)
    kubectl("rollout", "resume", "deploy/web", *at)
    assert "No rollout history found" in kubectl("rollout", "history", "deploy/web", *at)
    assert "timed out waiting" in kubectl.fails("rollout", "status", "deploy/web", "--timeout=100ms", *at)
    waiting = ["wait", "--for=condition=Available", "deploy/web", *at]
    assert "timed out waiting for the condition" in kubectl.fails(*waiting, "--timeout=100ms")
    become_available(cluster, namespace)
    assert kubectl(*waiting, "--timeout=5s") == "deployment.apps/web condition met\n"
    spec = json.loads(kubectl("get", "deploy", "web", *at, "-o", "json"))["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["env"]) == (1, [{"name": "A", "value": "b"}])
    assert "1 desired" in kubectl("describe", "deploy", "web", *at)
    assert kubectl("expose", "deploy/web", "--port=80", *at) == "service/web exposed\n"
    kubectl("autoscale", "deploy/web", "--max=3", *at)
    kubectl("run", "one", "--image=x", *at)
    kubectl("create", "job", "j", "--image=x", *at)
    kubectl("create", "ingress", "i", "--rule=a/b=c:80", *at)
    names = kubectl("get", "deploy,svc,hpa,job,ing", *at, "-o", "name").split()
    assert names == [
        "deployment.apps/web",
        "service/web",
        "horizontalpodautoscaler.autoscaling/web",
        "job.batch/j",
        "ingress.networking.k8s.io/i",
    ]


def test_watch(kubectl, namespace):
    at = ["-n", namespace]
    kubectl("create", "cm", "seen", *at)
    command = [str(kubectl._binary), "get", "cm", *at, "--field-selector=metadata.name=seen", "-w", "--no-headers", "--output-watch-events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **kubectl._env}) as watching:
        assert watching.stdout is not None
        events = [watching.stdout.readline().split()[0]]
        kubectl("label", "cm", "seen", "a=b", *at)
        events.append(watching.stdout.readline().split()[0])
        kubectl("delete", "cm", "seen", *at)
        events.append(watching.stdout.readline().split()[0])
        watching.terminate()
    assert events == ["ADDED", "MODIFIED", "DELETED"]


def test_who_may(kubectl, namespace):
    rules = READER % (namespace, "get") + "---\n" + READS % namespace
    said = kubectl("auth", "reconcile", "-f", "-", stdin=rules)
    assert "role.rbac.authorization.k8s.io/reader reconciled" in said
    assert "rolebinding.rbac.authorization.k8s.io/reads reconciled" in said
    more = kubectl.run("auth", "reconcile", "-f", "-", stdin=READER % (namespace, "get, list"))
    assert "missing rules added" in more.stderr
    as_amy = ["-n", namespace, "--as=amy"]
    assert kubectl("auth", "can-i", "list", "pods", *as_amy) == "yes\n"
    assert kubectl.run("auth", "can-i", "delete", "pods", *as_amy).stdout.startswith("no")
    assert re.search(r"^pods +\[\] +\[\] +\[(get list|list get|get\] *\n.*)", kubectl("auth", "can-i", "--list", *as_amy), re.MULTILINE)
    assert re.search(r"^\*\.\* +\[\] +\[\] +\[\*\]", kubectl("auth", "can-i", "--list"), re.MULTILINE)


def test_nodes(kubectl, namespace):
    node = f"node-{namespace}"
    kubectl("apply", "-f", "-", stdin=NODE % (node, namespace, node))
    assert kubectl("taint", "node", node, "a=b:NoSchedule") == f"node/{node} tainted\n"
    assert kubectl("taint", "node", node, "a-") == f"node/{node} untainted\n"
    assert kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert "SchedulingDisabled" in kubectl("get", "node", node)
    assert kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    assert "Taints:" in kubectl("describe", "node", node)
    assert "Metrics API not available" in kubectl.fails("top", "node")
    for dry in ("client", "server"):
        assert f"{namespace}/p ({'server ' if dry == 'server' else ''}dry run)" in kubectl("drain", node, "--force", f"--dry-run={dry}")
    assert kubectl("get", "pod", "p", "-n", namespace, "-o", "name") == "pod/p\n"
    assert "pod/p evicted" in kubectl("drain", node, "--force", "--grace-period=0", "--timeout=10s")
    assert kubectl("get", "pods", "-n", namespace, "--field-selector=metadata.name=p", "-o", "name") == ""
    kubectl("delete", "node", node)


def test_proxy(kubectl, namespace):
    command = [str(kubectl._binary), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **kubectl._env}) as proxy:
        assert proxy.stdout is not None
        address = proxy.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"http://{address}/api/v1/namespaces/{namespace}", timeout=10) as answer:
            assert json.load(answer)["metadata"]["name"] == namespace
        proxy.terminate()


def test_certificates(kubectl, namespace):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "amy")])
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    name = f"amy-{namespace}"
    spec = {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "request": base64.b64encode(pem).decode()}
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    kubectl("create", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": name}, "spec": spec}))
    assert kubectl("certificate", "approve", name) == f"certificatesigningrequest.certificates.k8s.io/{name} approved\n"
    assert "already Approved" in kubectl.fails("certificate", "deny", name)
    assert "Approved" in kubectl("get", "csr", name)
    kubectl("delete", "csr", name)
