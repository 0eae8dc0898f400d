"""Custom resources through clients that build on them: helm, an operator by kopf, kr8s and lightkube."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl
from helm_tools import helm

from atoll.client.resources import JOBS

DEFINITION = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.tiny.example.com}
spec:
  group: tiny.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
WIDGET = "apiVersion: tiny.example.com/v1\nkind: Widget\nmetadata: {name: %s}\nspec: {size: %s}\n"
HOOK = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-hook
  annotations:
    helm.sh/hook: pre-install,pre-upgrade,post-delete
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
data: {a: b}
"""
# One of each moment, which stays; before those of an install comes a job, by its weight.
TOLD = """\
{{- range $hook := splitList " " "pre-install post-install pre-upgrade post-upgrade pre-rollback post-rollback pre-delete post-delete" }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $.Release.Name }}-{{ $hook }}
  annotations: {helm.sh/hook: {{ $hook }}, helm.sh/hook-weight: "5", helm.sh/hook-delete-policy: before-hook-creation}
data: {revision: {{ $.Release.Revision | quote }}}
{{- end }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-first
  annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: "-5"}
spec:
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}
"""
CHART = {
    "Chart.yaml": "apiVersion: v2\nname: tiny\nversion: 0.1.0\n",
    "values.yaml": "size: 2\n",
    "crds/widgets.yaml": DEFINITION,
    "templates/widget.yaml": WIDGET % ("{{ .Release.Name }}", "{{ .Values.size }}"),
    "templates/hook.yaml": HOOK,
    "templates/told.yaml": TOLD,
}
OPERATOR = """\
import kopf

@kopf.on.create("tiny.example.com", "v1", "widgets")
def created(spec, patch, **_):
    patch.status["size"] = spec["size"]

@kopf.on.update("tiny.example.com", "v1", "widgets", field="spec.size")
def updated(new, patch, **_):
    patch.status["size"] = new

@kopf.on.delete("tiny.example.com", "v1", "widgets")
def deleted(**_):
    pass
"""
KR8S = """\
import kr8s, sys, warnings
from kr8s.objects import new_class
warnings.simplefilter("ignore")  # it says of each release newer than itself that it is not supported
api = kr8s.api(kubeconfig=sys.argv[1])
Widget = new_class(kind="Widget", version="tiny.example.com/v1", namespaced=True, plural="widgets")
widget = Widget({"metadata": {"name": "x"}, "spec": {"size": 4}}, api=api)
widget.create()
widget.patch({"spec": {"size": 5}})
print([(each.name, each.spec.size) for each in api.get("widgets")])
widget.delete()
"""
LIGHTKUBE = """\
import sys
from lightkube import Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
Widget = create_namespaced_resource("tiny.example.com", "v1", "Widget", "widgets")
client = Client(KubeConfig.from_file(sys.argv[1]), field_manager="me")
client.create(Widget(metadata={"name": "y"}, spec={"size": 1}), namespace="default")
client.apply(Widget(metadata={"name": "y", "namespace": "default"}, spec={"size": 2}), force=True)
print([(each.metadata.name, each.spec["size"]) for each in client.list(Widget, namespace="default")])
client.delete(Widget, "y", namespace="default")
"""


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def kubectl(cluster):
    return Kubectl(KUBECTLS[-1], cluster.admin())


def finish(cluster, name):
    """Bring a job to its end, as the job controller would tell it, were there one."""
    at = "2026-01-01T00:00:00Z"
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": at} for kind in ("SuccessCriteriaMet", "Complete")]
    status = {"startTime": at, "completionTime": at, "succeeded": 1, "conditions": conditions}
    deadline = time.monotonic() + 20
    while name not in [job["metadata"]["name"] for job in cluster.run(cluster.client.list(JOBS, "default"))["items"]]:
        assert time.monotonic() < deadline, f"job {name} has not come"
        time.sleep(0.02)
    cluster.run(cluster.client.patch(JOBS, name, {"status": status}, "default", subresource="status"))


@pytest.mark.parametrize("major", [3, 4])
def test_helm_installs_upgrades_rolls_back_and_uninstalls(cluster, kubectl, tmp_path, major):
    binary = helm(major)
    if binary is None:
        pytest.skip(f"no helm {major} to be had")
    chart = tmp_path / "chart"
    for name, text in CHART.items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text)
    runs = Kubectl(binary, cluster.admin())

    def size():
        return kubectl("get", "wd", "one", "-o", "jsonpath={.spec.size}")

    def version(kind, name):
        return int(kubectl("get", kind, name, "-o", "jsonpath={.metadata.resourceVersion}"))

    def hooks():
        """Which moments have been, and the revision each was of."""
        found = json.loads(kubectl("get", "cm", "-o", "json"))["items"]
        return {each["metadata"]["name"].removeprefix("one-"): each["data"]["revision"] for each in found}

    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(runs, "install", "one", str(chart), "--timeout", "20s")
        finish(cluster, "one-first")
        assert "STATUS: deployed" in installing.result()
    assert size() == "2"
    assert hooks() == {"pre-install": "1", "post-install": "1"}
    assert version("job", "one-first") < version("cm", "one-pre-install") < version("wd", "one") < version("cm", "one-post-install")
    runs("upgrade", "one", str(chart), "--set", "size=5", "--timeout", "20s")
    assert size() == "5"
    assert hooks() == {"pre-install": "1", "post-install": "1", "pre-upgrade": "2", "post-upgrade": "2"}
    assert "spec.size in body should be greater than or equal to 1" in runs.fails("upgrade", "one", str(chart), "--set", "size=0")
    runs("rollback", "one", "1", "--timeout", "20s")
    assert size() == "2"
    assert [entry["status"] for entry in json.loads(runs("history", "one", "-o", "json"))][-2:] == ["failed", "deployed"]
    # The upgrade that failed got as far as its first hook; rolling back runs those of the revision it goes back to.
    at_first = ("pre-install", "post-install", "pre-rollback", "post-rollback")
    assert hooks() == {**dict.fromkeys(at_first, "1"), "pre-upgrade": "3", "post-upgrade": "2"}
    runs("uninstall", "one", "--timeout", "20s")
    assert {"pre-delete", "post-delete"} <= hooks().keys()  # what hooks have made stays
    assert kubectl("get", "wd,secrets", "-o", "name") == ""
    assert "widgets.tiny.example.com" in kubectl("get", "crd", "-o", "name")


@contextmanager
def operator(cluster, tmp_path):
    (tmp_path / "operator.py").write_text(OPERATOR)
    command = [sys.executable, "-m", "kopf", "run", "-A", str(tmp_path / "operator.py")]
    with subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(cluster.admin())}, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield
        finally:
            running.terminate()
            _, said = running.communicate(timeout=20)
            sys.stderr.write(said)


def test_an_operator_by_kopf(cluster, kubectl, tmp_path):
    kubectl("apply", "-f", "-", stdin=DEFINITION)
    with operator(cluster, tmp_path):
        kubectl("apply", "-f", "-", stdin=WIDGET % ("a", 2))
        kubectl("wait", "wd/a", "--for=jsonpath={.status.size}=2", "--timeout=20s")
        assert "KopfFinalizerMarker" in kubectl("get", "wd", "a", "-o", "jsonpath={.metadata.finalizers}")
        kubectl("apply", "-f", "-", stdin=WIDGET % ("a", 3))
        kubectl("wait", "wd/a", "--for=jsonpath={.status.size}=3", "--timeout=20s")
        started = time.monotonic()
        kubectl("delete", "wd", "a", "--timeout=20s")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(("script", "told"), [(KR8S, "[('x', 5)]"), (LIGHTKUBE, "[('y', 2)]")], ids=["kr8s", "lightkube"])
def test_other_python_clients(cluster, kubectl, script, told):
    kubectl("apply", "-f", "-", stdin=DEFINITION)
    kubectl("wait", "--for=condition=Established", "crd/widgets.tiny.example.com", "--timeout=5s")
    command = [sys.executable, "-c", script, str(cluster.admin())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == told
    assert kubectl("get", "wd", "-o", "name") == ""
