"""Quotas and limit ranges, as kubectl meets them; and what controllers add: counts that follow, roles that grow, nodes that fall silent."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import count

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

from atoll.client.factory import InformerFactory
from atoll.controllers.base import Config
from atoll.controllers.registry import run_all

PATIENCE_S = 10.0
NUMBERS = count()
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec: {containers: [{name: c, image: busybox, resources: %s}]}
"""
LIMITS = """\
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec:
  limits:
  - {type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}, max: {cpu: "1"}, min: {cpu: 50m}}
  - {type: Pod, max: {memory: 1Gi}}
  - {type: PersistentVolumeClaim, max: {storage: 2Gi}}
"""
CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 3Gi}}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))

    async def controllers():
        informers = InformerFactory(cluster.client)
        await asyncio.gather(informers.run(), run_all(cluster.client, Config(node_monitor_grace_s=1.0), informers=informers))

    async def start():
        return asyncio.create_task(controllers())

    async def stop():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task = cluster.run(start())
    yield cluster
    cluster.run(stop())
    cluster.close()


@pytest.fixture(params=KUBECTLS, ids=[str(path) for path in KUBECTLS])
def kubectl(request, cluster):
    return Kubectl(request.param, cluster.admin())


@pytest.fixture
def namespace(kubectl):
    name = f"quota{next(NUMBERS)}"
    kubectl("create", "namespace", name)
    eventually(lambda: kubectl.run("get", "serviceaccount", "default", "-n", name).returncode == 0)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def eventually(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r}"
        time.sleep(0.05)
    return answer


def used(kubectl, namespace, name="q"):
    return json.loads(kubectl("get", "quota", name, "-n", namespace, "-o", "json")).get("status", {}).get("used", {})


def test_a_quota_is_charged_and_given_back(kubectl, namespace):
    kubectl("create", "quota", "q", "--hard=pods=2,requests.memory=1Gi,count/deployments.apps=1", "-n", namespace)
    eventually(lambda: used(kubectl, namespace) == {"pods": "0", "requests.memory": "0", "count/deployments.apps": "0"})
    apply = ["apply", "-n", namespace, "-f", "-"]
    kubectl(*apply, stdin=POD % ("a", "{requests: {memory: 600Mi}}"))
    assert used(kubectl, namespace) == {"pods": "1", "requests.memory": "600Mi", "count/deployments.apps": "0"}
    told = "exceeded quota: q, requested: requests.memory=600Mi, used: requests.memory=600Mi, limited: requests.memory=1Gi\n"
    assert kubectl.fails(*apply, stdin=POD % ("b", "{requests: {memory: 600Mi}}")).endswith(f'pods "b" is forbidden: {told}')
    assert "failed quota: q: must specify requests.memory for: c" in kubectl.fails(*apply, stdin=POD % ("b", "{}"))
    kubectl("delete", "pod", "a", "-n", namespace, "--wait=false")
    eventually(lambda: used(kubectl, namespace)["pods"] == "0")
    kubectl("create", "deployment", "web", "--image=x", "--replicas=0", "-n", namespace)
    assert "exceeded quota" in kubectl.fails("create", "deployment", "more", "--image=x", "-n", namespace)
    assert "already exists" in kubectl.fails("create", "deployment", "web", "--image=x", "-n", namespace)


def test_a_dry_run_costs_nothing_and_scopes_choose(kubectl, namespace):
    kubectl("create", "quota", "q", "--hard=pods=1", "--scopes=BestEffort", "-n", namespace)
    eventually(lambda: used(kubectl, namespace) == {"pods": "0"})
    kubectl("apply", "--dry-run=server", "-n", namespace, "-f", "-", stdin=POD % ("a", "{}"))
    kubectl("apply", "-n", namespace, "-f", "-", stdin=POD % ("b", "{requests: {cpu: 1m}}"))
    assert used(kubectl, namespace) == {"pods": "0"}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=POD % ("c", "{}"))
    assert used(kubectl, namespace) == {"pods": "1"}


def test_what_comes_at_once_cannot_overshoot(kubectl, namespace, cluster):
    kubectl("create", "quota", "q", "--hard=count/configmaps=20", "-n", namespace)
    eventually(lambda: used(kubectl, namespace).get("count/configmaps"))
    before = int(used(kubectl, namespace)["count/configmaps"])

    async def flood():
        from atoll.client.resources import CONFIG_MAPS

        made = [cluster.client.create(CONFIG_MAPS, {"metadata": {"name": f"m{number}"}}, namespace) for number in range(40)]
        return await asyncio.gather(*made, return_exceptions=True)

    answers = cluster.run(flood())
    assert sum(isinstance(answer, dict) for answer in answers) == 20 - before
    eventually(lambda: used(kubectl, namespace) == {"count/configmaps": "20"})


def test_limit_ranges_fill_in_and_refuse(kubectl, namespace):
    apply = ["apply", "-n", namespace, "-f", "-"]
    kubectl(*apply, stdin=LIMITS)
    kubectl(*apply, stdin=POD % ("a", "{limits: {memory: 1Gi}}"))
    pod = json.loads(kubectl("get", "pod", "a", "-n", namespace, "-o", "json"))
    assert pod["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }
    told = "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    assert pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == told
    refused = kubectl.fails(*apply, stdin=POD % ("b", "{limits: {memory: 2Gi, cpu: 2}, requests: {cpu: 10m}}"))
    assert "minimum cpu usage per Container is 50m, but request is 10m" in refused
    assert "maximum cpu usage per Container is 1, but limit is 2" in refused
    assert "maximum memory usage per Pod is 1Gi, but limit is 2Gi" in refused
    assert "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi" in kubectl.fails(*apply, stdin=CLAIM)


def test_admin_grows_by_a_role_with_its_label(kubectl):
    name = f"crons{next(NUMBERS)}"
    kubectl("create", "clusterrole", name, "--verb=get", f"--resource={'pods'}", "--resource-name=" + name)
    kubectl("label", "clusterrole", name, "rbac.authorization.k8s.io/aggregate-to-view=true")
    for role in ("view", "edit", "admin"):
        eventually(lambda role=role: name in kubectl("get", "clusterrole", role, "-o", "yaml"))
    kubectl("delete", "clusterrole", name)
    for role in ("view", "edit", "admin"):
        eventually(lambda role=role: name not in kubectl("get", "clusterrole", role, "-o", "yaml"))
    assert "deployments" in kubectl("get", "clusterrole", "edit", "-o", "yaml")


def test_a_node_that_falls_silent_is_tainted(kubectl):
    name = f"node{next(NUMBERS)}"
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    kubectl("create", "-f", "-", stdin=json.dumps(node))
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]
    kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"conditions": ready}}))
    eventually(lambda: kubectl("get", "node", name, "-o", "jsonpath={.status.conditions[0].status}") == "Unknown")
    kubectl("wait", "--for=condition=Ready=Unknown", f"node/{name}", "--timeout=5s")
    effects = kubectl("get", "node", name, "-o", "jsonpath={.spec.taints[*].key} {.spec.taints[*].effect}").split()
    assert effects.count("node.kubernetes.io/unreachable") == 2
    assert {"NoSchedule", "NoExecute"} <= set(effects)
    assert "NotReady" in kubectl("get", "node", name)
    kubectl("delete", "node", name)
