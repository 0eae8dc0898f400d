"""kubectl of two releases against the server over TLS: what a user does in a day."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

CONFIGMAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: '%s'}\n"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: nginx, ports: [{containerPort: 80}]}]
"""
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c, image: busybox}]}\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(params=KUBECTLS, ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(request.param, cluster.admin())


@pytest.fixture
def namespace(kubectl, request):
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    kubectl("create", "namespace", name)
    kubectl("create", "serviceaccount", "default", "-n", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def test_version_and_resources(kubectl):
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == "v1.36.0"
    resources = kubectl("api-resources", "--no-headers")
    assert "deployments" in resources
    assert len(resources.splitlines()) > 60
    assert "apps/v1" in kubectl("api-versions").split()


def test_apply_twice_says_unchanged(kubectl, namespace):
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("a", 1)) == "configmap/a created\n"
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("a", 1)) == "configmap/a unchanged\n"
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("a", 2)) == "configmap/a configured\n"
    assert kubectl("get", "cm", "a", "-n", namespace, "-o", "jsonpath={.data.key}") == "2"


def test_apply_on_the_server(kubectl, namespace):
    apply = ["apply", "--server-side", "-n", namespace, "-f", "-"]
    assert kubectl(*apply, stdin=DEPLOYMENT % "web") == "deployment.apps/web serverside-applied\n"
    version = kubectl("get", "deploy", "web", "-n", namespace, "-o", "jsonpath={.metadata.resourceVersion}")
    kubectl(*apply, stdin=DEPLOYMENT % "web")
    assert kubectl("get", "deploy", "web", "-n", namespace, "-o", "jsonpath={.metadata.resourceVersion}") == version
    kubectl("scale", "deploy/web", "--replicas=7", "-n", namespace)
    assert "conflict" in kubectl.fails(*apply, "--field-manager=other", stdin=DEPLOYMENT % "web")
    kubectl(*apply, "--force-conflicts", "--field-manager=other", stdin=DEPLOYMENT % "web")
    assert kubectl("get", "deploy", "web", "-n", namespace, "-o", "jsonpath={.spec.replicas}") == "2"
    assert "kubectl" in kubectl("get", "deploy", "web", "-n", namespace, "-o", "yaml", "--show-managed-fields")


def test_a_deployment_applied_again_is_unchanged_in_spite_of_defaults(kubectl, namespace):
    manifest = DEPLOYMENT % "web"
    kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest) == "deployment.apps/web unchanged\n"
    changed = manifest.replace("nginx", "nginx:2").replace("containerPort: 80", "containerPort: 81")
    assert kubectl("apply", "-n", namespace, "-f", "-", stdin=changed) == "deployment.apps/web configured\n"
    spec = json.loads(kubectl("get", "deploy", "web", "-n", namespace, "-o", "json"))["spec"]
    assert spec["template"]["spec"]["containers"][0]["image"] == "nginx:2"
    assert [port["containerPort"] for port in spec["template"]["spec"]["containers"][0]["ports"]] == [81]


def test_create_commands_send_protobuf(kubectl, namespace):
    kubectl("create", "configmap", "one", "--from-literal=a=1", "-n", namespace)
    kubectl("create", "secret", "generic", "two", "--from-literal=b=2", "-n", namespace)
    kubectl("create", "deployment", "three", "--image=x", "--replicas=0", "-n", namespace)
    kubectl("create", "service", "nodeport", "four", "--tcp=80:8080", "-n", namespace)
    kubectl("create", "job", "five", "--image=x", "-n", namespace)
    kubectl("create", "role", "six", "--verb=get", "--resource=pods", "-n", namespace)
    kubectl("create", "quota", "seven", "--hard=cpu=1", "-n", namespace)
    assert kubectl("get", "deploy", "three", "-n", namespace, "-o", "jsonpath={.spec.replicas}") == "0"
    assert kubectl("get", "secret", "two", "-n", namespace, "-o", "jsonpath={.data.b}") == "Mg=="
    service = json.loads(kubectl("get", "svc", "four", "-n", namespace, "-o", "json"))["spec"]
    assert service["clusterIP"].startswith("10.")
    assert 30_000 <= service["ports"][0]["nodePort"] < 32_768


def test_output_forms(kubectl, namespace):
    for name in "abc":
        kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % (name, name))
    kubectl("label", "cm", "a", "b", "tier=front", "-n", namespace)
    assert kubectl("get", "cm", "-n", namespace, "-o", "name").split() == ["configmap/a", "configmap/b", "configmap/c"]
    assert kubectl("get", "cm", "-l", "tier in (front,back)", "-n", namespace, "-o", "name").split() == ["configmap/a", "configmap/b"]
    assert kubectl("get", "cm", "-l", "!tier", "-n", namespace, "-o", "name").split() == ["configmap/c"]
    assert kubectl("get", "cm", "--field-selector", "metadata.name=b", "-n", namespace, "-o", "name").split() == ["configmap/b"]
    assert "apiVersion: v1" in kubectl("get", "cm", "a", "-n", namespace, "-o", "yaml")
    assert kubectl("get", "cm", "-A", "--chunk-size=1", "-o", "name").count("configmap/") >= 3
    assert kubectl("get", "cm", "-n", namespace, "-o", "custom-columns=K:.data.key", "--no-headers").split() == ["a", "b", "c"]


def test_tables_of_pods(kubectl, namespace):
    kubectl("apply", "-n", namespace, "-f", "-", stdin=POD % "p")
    head, row = kubectl("get", "pods", "-n", namespace, "-o", "wide").splitlines()
    assert head.split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["p", "0/1", "Pending", "0"]
    assert namespace in kubectl("get", "pods", "-A")


def test_watch_shows_changes(kubectl, namespace):
    kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("a", 1))
    selector = ["get", "cm", "-n", namespace, "-w", "--field-selector=metadata.name=a", "--output-watch-events", "--no-headers"]
    command = ["timeout", "15", str(kubectl._binary), *selector]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **kubectl._env}) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline()]
        kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("a", 2))
        lines.append(watching.stdout.readline())
        kubectl("delete", "cm", "a", "-n", namespace)
        lines.append(watching.stdout.readline())
        watching.terminate()
    assert [line.split()[:2] for line in lines] == [["ADDED", "a"], ["MODIFIED", "a"], ["DELETED", "a"]]


def test_edit_with_a_scripted_editor(kubectl, namespace, tmp_path):
    kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("a", "old"))
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/old/new/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl("edit", "cm", "a", "-n", namespace, env={"EDITOR": str(editor)})
    assert kubectl("get", "cm", "a", "-n", namespace, "-o", "jsonpath={.data.key}") == "new"


def test_scale_patch_and_set(kubectl, namespace):
    kubectl("apply", "-n", namespace, "-f", "-", stdin=DEPLOYMENT % "web")
    kubectl("scale", "deploy/web", "--replicas=5", "-n", namespace)
    kubectl("set", "image", "deploy/web", "main=busybox", "-n", namespace)
    kubectl("patch", "deploy", "web", "-n", namespace, "--type=json", "-p", '[{"op":"add","path":"/metadata/labels/x","value":"y"}]')
    kubectl("annotate", "deploy", "web", "note=1", "-n", namespace)
    found = json.loads(kubectl("get", "deploy", "web", "-n", namespace, "-o", "json"))
    assert found["spec"]["replicas"] == 5
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox"
    assert found["metadata"]["labels"]["x"] == "y"
    assert found["metadata"]["generation"] == 3


def test_strict_validation_names_the_field(kubectl, namespace):
    bad = (CONFIGMAP % ("a", 1)) + "foo: bar\n"
    assert 'unknown field "foo"' in kubectl.fails("apply", "-n", namespace, "-f", "-", stdin=bad)
    assert kubectl("apply", "-n", namespace, "--validate=ignore", "-f", "-", stdin=bad) == "configmap/a created\n"
    done = kubectl.run("apply", "-n", namespace, "--validate=warn", "-f", "-", stdin=bad)
    assert 'Warning: unknown field "foo"' in done.stderr


def test_errors_in_upstreams_words(kubectl, namespace):
    assert kubectl.fails("get", "pod", "x", "-n", namespace) == 'Error from server (NotFound): pods "x" not found\n'
    assert kubectl.fails("get", "nothing") == 'error: the server doesn\'t have a resource type "nothing"\n'
    kubectl("create", "cm", "a", "-n", namespace)
    assert kubectl.fails("create", "cm", "a", "-n", namespace).endswith('configmaps "a" already exists\n')
    assert "not found" in kubectl.fails("create", "cm", "a", "-n", "no-such-namespace")
    bad_name = kubectl.fails("apply", "-n", namespace, "-f", "-", stdin=CONFIGMAP % ("Not_A_Name", 1))
    assert 'The ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name"' in bad_name
    wrong_type = kubectl.fails(
        "apply", "-n", namespace, "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {a: 1}\n"
    )
    assert "cannot unmarshal number into Go struct field ConfigMap.data of type string" in wrong_type


def test_replace_with_an_old_version_is_a_conflict(kubectl, namespace):
    kubectl("create", "cm", "a", "-n", namespace)
    old = kubectl("get", "cm", "a", "-n", namespace, "-o", "yaml")
    kubectl("annotate", "cm", "a", "x=y", "-n", namespace)
    assert "the object has been modified; please apply your changes to the latest version and try again" in kubectl.fails(
        "replace", "-f", "-", stdin=old
    )


def test_delete_and_wait(kubectl, namespace):
    kubectl("apply", "-n", namespace, "-f", "-", stdin=POD % "p")
    started = time.monotonic()
    assert kubectl("delete", "pod", "p", "-n", namespace) == f'pod "p" deleted{_from(kubectl, namespace)}\n'
    assert time.monotonic() - started < 5
    kubectl("create", "cm", "a", "-n", namespace)
    kubectl("delete", "cm", "--all", "-n", namespace)
    assert kubectl("get", "cm", "-n", namespace, "-o", "name") == ""


def _from(kubectl: Kubectl, namespace: str) -> str:
    """Newer kubectls name the namespace."""
    version = json.loads(kubectl("version", "-o", "json"))["clientVersion"]["minor"]
    return f" from {namespace} namespace" if int(version.rstrip("+")) >= 34 else ""


def test_dry_run_on_the_server_stores_nothing(kubectl, namespace):
    made = kubectl("create", "-n", namespace, "-f", "-", "--dry-run=server", "-o", "yaml", stdin=CONFIGMAP % ("a", 1))
    assert "uid:" in made
    assert kubectl("get", "cm", "-n", namespace, "-o", "name") == ""


def test_explain(kubectl):
    assert "FIELD: replicas <integer>" in kubectl("explain", "deployment.spec.replicas")
    assert "containers" in kubectl("explain", "pod", "--recursive")


def test_who_may_do_what(kubectl, cluster, namespace):
    bob = Kubectl(kubectl._binary, cluster.kubeconfig("bob", "devs"))
    assert bob.fails("get", "pods", "-n", namespace) == (
        'Error from server (Forbidden): pods is forbidden: User "bob" cannot list resource "pods" in API group "" '
        f'in the namespace "{namespace}"\n'
    )
    assert bob.run("auth", "can-i", "list", "pods", "-n", namespace).stdout == "no\n"
    kubectl("create", "rolebinding", "b", "--clusterrole=view", "--user=bob", "-n", namespace)
    assert bob("auth", "can-i", "list", "pods", "-n", namespace) == "yes\n"
    assert bob("get", "pods", "-n", namespace, "-o", "name") == ""
    assert "bob" in bob("auth", "whoami")
    assert "cannot create resource" in bob.fails("create", "cm", "x", "-n", namespace)
    assert "pods" in bob("auth", "can-i", "--list", "-n", namespace)
    assert kubectl("get", "cm", "-n", namespace, "--as", "bob", "-o", "name") == ""
    assert "cannot delete" in kubectl.fails("delete", "ns", namespace, "--as", "bob")


def test_tokens_work_and_die_with_their_account(kubectl, cluster, namespace):
    kubectl("create", "serviceaccount", "robot", "-n", namespace)
    kubectl("create", "rolebinding", "r", "--clusterrole=edit", f"--serviceaccount={namespace}:robot", "-n", namespace)
    token = kubectl("create", "token", "robot", "-n", namespace).strip()
    anonymous = cluster.home / "plain.kubeconfig"
    authority = cluster.home / "ca.crt"
    anonymous.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        f'clusters: [{{name: c, cluster: {{server: "{cluster.url}", certificate-authority: {authority}}}}}]\n'
        "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: none}}]\n"
    )
    robot = Kubectl(kubectl._binary, anonymous)
    assert robot("get", "cm", "-n", namespace, "-o", "name", "--token", token) == ""
    kubectl("delete", "serviceaccount", "robot", "-n", namespace)
    assert "must be logged in" in robot.fails("get", "cm", "-n", namespace, "--token", token)


def test_health(kubectl):
    assert kubectl("get", "--raw", "/readyz") == "ok"
    assert "[+]ping ok" in kubectl("get", "--raw", "/readyz?verbose")
