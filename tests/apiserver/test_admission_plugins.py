"""The default plug-ins one by one: what each adds to an object, and what it refuses."""

from __future__ import annotations

import asyncio

import pytest
from apiserver_tools import Pki

from atoll.apiserver import InProcessClient
from atoll.apiserver.server import ApiServer
from atoll.client.resources import (
    INGRESS_CLASSES,
    INGRESSES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    SERVICE_ACCOUNTS,
    STORAGE_CLASSES,
)
from atoll.errors import StatusError


def run(tmp_path, scenario):
    async def whole():
        server = ApiServer(Pki(tmp_path).config())
        await server.start()
        try:
            client = InProcessClient(server)
            await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")
            await scenario(client)
        finally:
            await server.close()

    asyncio.run(whole())


def pod(name="p", **spec):
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


async def refused(what, why, code=403):
    with pytest.raises(StatusError) as told:
        await what
    assert told.value.code == code, told.value
    assert why in told.value.message, told.value.message


def test_runtime_class(tmp_path):
    async def scenario(client):
        await refused(client.create(PODS, pod(runtimeClassName="kata"), "default"), 'pod rejected: RuntimeClass "kata" not found')
        scheduling = {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}
        kata = {"metadata": {"name": "kata"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": scheduling}
        await client.create(RUNTIME_CLASSES, kata)
        made = await client.create(PODS, pod(runtimeClassName="kata", nodeSelector={"a": "b"}), "default")
        assert made["spec"]["overhead"] == {"cpu": "100m"}
        assert made["spec"]["nodeSelector"] == {"a": "b", "kata": "yes"}
        assert any(each.get("key") == "kata" for each in made["spec"]["tolerations"])
        conflicting = pod("q", runtimeClassName="kata", nodeSelector={"kata": "no"})
        told = "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no"
        await refused(client.create(PODS, conflicting, "default"), told)
        await refused(client.create(PODS, pod("q", overhead={"cpu": "1"}), "default"), "Pod Overhead set without corresponding")
        other = pod("q", runtimeClassName="kata", overhead={"cpu": "1"})
        await refused(client.create(PODS, other, "default"), "Pod's Overhead doesn't match RuntimeClass's defined Overhead")

    run(tmp_path, scenario)


def test_default_ingress_class(tmp_path):
    async def scenario(client):
        backend = {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}
        made = await client.create(INGRESSES, {"metadata": {"name": "a"}, "spec": backend}, "default")
        assert "ingressClassName" not in made["spec"]
        mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
        await client.create(INGRESS_CLASSES, {"metadata": {"name": "web", "annotations": mark}, "spec": {"controller": "example.com/c"}})
        made = await client.create(INGRESSES, {"metadata": {"name": "b"}, "spec": dict(backend)}, "default")
        assert made["spec"]["ingressClassName"] == "web"
        named = {"metadata": {"name": "c", "annotations": {"kubernetes.io/ingress.class": "old"}}, "spec": dict(backend)}
        made = await client.create(INGRESSES, named, "default")
        assert "ingressClassName" not in made["spec"]

    run(tmp_path, scenario)


def test_storage(tmp_path):
    async def scenario(client):
        for name, grows in (("fixed", False), ("grows", True)):
            await client.create(STORAGE_CLASSES, {"metadata": {"name": name}, "provisioner": "x/y", "allowVolumeExpansion": grows})
        for name in ("fixed", "grows"):
            spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": name}
            made = await client.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": name}, "spec": spec}, "default")
            assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
            larger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
            await refused(client.patch(PERSISTENT_VOLUME_CLAIMS, name, larger, "default"), "spec", 422)
            await client.patch(PERSISTENT_VOLUME_CLAIMS, name, {"status": {"phase": "Bound"}}, "default", subresource="status")
        why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
        await refused(client.patch(PERSISTENT_VOLUME_CLAIMS, "fixed", larger, "default"), why)
        await client.patch(PERSISTENT_VOLUME_CLAIMS, "grows", larger, "default")
        volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        made = await client.create(PERSISTENT_VOLUMES, {"metadata": {"name": "v"}, "spec": volume})
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]

    run(tmp_path, scenario)


def test_priority(tmp_path):
    async def scenario(client):
        await client.create(PRIORITY_CLASSES, {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True})
        second = {"metadata": {"name": "other"}, "value": 6, "globalDefault": True}
        await refused(
            client.create(PRIORITY_CLASSES, second), "PriorityClass usual is already marked as default. Only one default can exist"
        )
        made = await client.create(PODS, pod(), "default")
        assert (made["spec"]["priority"], made["spec"]["priorityClassName"]) == (5, "usual")
        await client.create(PRIORITY_CLASSES, {"metadata": {"name": "meek"}, "value": 6, "preemptionPolicy": "Never"})
        assert (await client.create(PODS, pod("q", priorityClassName="meek"), "default"))["spec"]["preemptionPolicy"] == "Never"
        bold = pod("r", priorityClassName="meek", preemptionPolicy="PreemptLowerPriority")
        await refused(
            client.create(PODS, bold, "default"), "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided"
        )
        await refused(client.create(PODS, pod("r", priority=7), "default"), "the integer value of priority (7) must not be provided")
        await refused(client.create(PODS, pod("r", priorityClassName="none"), "default"), "no PriorityClass with name none was found")

    run(tmp_path, scenario)


def test_nodes_begin_tainted_and_give_pods_their_place(tmp_path):
    async def scenario(client):
        labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "a": "b"}
        made = await client.create(NODES, {"metadata": {"name": "n", "labels": labels}})
        assert made["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
        await client.create(PODS, pod(), "default")
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
        await client.create(PODS, binding, "default", name="p", subresource="binding")
        bound = await client.get(PODS, "p", "default")
        assert bound["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"}

    run(tmp_path, scenario)


def test_default_tolerations(tmp_path):
    async def scenario(client):
        own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7}
        made = await client.create(PODS, pod(tolerations=[own]), "default")
        told = {each["key"]: each["tolerationSeconds"] for each in made["spec"]["tolerations"]}
        assert told == {"node.kubernetes.io/not-ready": 7, "node.kubernetes.io/unreachable": 300}

    run(tmp_path, scenario)


def test_a_mirror_pod_refers_to_nothing(tmp_path):
    async def scenario(client):
        mirror = pod(serviceAccountName="default", nodeName="n")
        mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        await refused(client.create(PODS, mirror, "default"), "a mirror pod may not reference service accounts")

    run(tmp_path, scenario)
