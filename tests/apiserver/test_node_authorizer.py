"""What a kubelet may read and write: what the pods bound to its node refer to, and its own objects. Others' are refused by name."""

from __future__ import annotations

import asyncio

import pytest
from apiserver_tools import Pki

from atoll.apiserver import InProcessClient
from atoll.apiserver.call import User
from atoll.apiserver.server import ApiServer
from atoll.client.resources import (
    CONFIG_MAPS,
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from atoll.errors import StatusError

MIRROR = {"kubernetes.io/config.mirror": "x"}


def run(tmp_path, scenario):
    async def whole():
        server = ApiServer(Pki(tmp_path).config())
        await server.start()
        try:
            admin = InProcessClient(server)
            for name in ("n1", "n2"):
                await admin.create(NODES, {"metadata": {"name": name}})
            await admin.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")
            node = InProcessClient(server, User("system:node:n1", ("system:nodes", "system:authenticated")))
            await scenario(admin, node)
        finally:
            await server.close()

    asyncio.run(whole())


def _pod(name, node, **spec):
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec}}


async def refused(what, why, code=403):
    with pytest.raises(StatusError) as told:
        await what
    assert told.value.code == code, told.value
    assert why in told.value.message, told.value.message


def test_reads_what_its_pods_refer_to(tmp_path):
    async def scenario(admin, node):
        for name in ("a", "b", "c"):
            await admin.create(SECRETS, {"metadata": {"name": name}}, "default")
            await admin.create(CONFIG_MAPS, {"metadata": {"name": name}}, "default")
        volume = {"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}
        volume["spec"]["csi"] = {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"name": "c", "namespace": "default"}}
        await admin.create(PERSISTENT_VOLUMES, volume)
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v"}
        await admin.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "claim"}, "spec": claim}, "default")
        unrelated = "no relationship found between node 'n1' and this object"
        await refused(node.get(SECRETS, "a", "default"), unrelated)
        env = [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}]
        volumes = [{"name": "s", "secret": {"secretName": "a"}}, {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]
        await admin.create(PODS, _pod("p", "n1", containers=[{"name": "c", "image": "i", "env": env}], volumes=volumes), "default")
        await admin.create(PODS, _pod("q", "n2", volumes=[{"name": "s", "secret": {"secretName": "b"}}]), "default")
        await node.get(SECRETS, "a", "default")
        await node.get(SECRETS, "c", "default")  # by way of claim and volume
        await node.get(CONFIG_MAPS, "a", "default")
        assert len((await node.list(SECRETS, "default", field_selector="metadata.name=a"))["items"]) == 1
        await node.get(PERSISTENT_VOLUMES, "v")
        await node.get(PERSISTENT_VOLUME_CLAIMS, "claim", "default")
        await refused(node.get(SECRETS, "b", "default"), unrelated)
        await refused(node.get(CONFIG_MAPS, "b", "default"), unrelated)
        await refused(node.list(SECRETS, "default"), "No Object name found")
        await refused(node.list(SECRETS), "can only read namespaced object of this type")
        await refused(node.create(SECRETS, {"metadata": {"name": "x"}}, "default"), "can only read resources of this type")
        await refused(node.get(PODS, "q", "default"), unrelated)
        await node.get(PODS, "p", "default")
        await refused(node.list(PODS), "can only list/watch pods with spec.nodeName field selector")
        assert len((await node.list(PODS, field_selector="spec.nodeName=n1"))["items"]) == 1
        await refused(node.list(PODS, field_selector="spec.nodeName=n2"), "can only list/watch pods")
        await refused(node.list(NODES), "cannot read all nodes, only its own Node object")
        await refused(node.get(NODES, "n2"), "cannot read 'n2', only its own Node object")
        await node.list(SERVICES)
        await admin.delete(PODS, "p", "default", grace_seconds=0)
        await refused(node.get(SECRETS, "a", "default"), unrelated)

    run(tmp_path, scenario)


def test_writes_only_its_own(tmp_path):
    async def scenario(admin, node):
        await refused(node.patch(NODES, "n2", {"metadata": {"labels": {"a": "b"}}}), 'is not allowed to modify node "n2"')
        await node.patch(NODES, "n1", {"metadata": {"labels": {"a": "b", "node.kubernetes.io/x": "y", "kubernetes.io/hostname": "n1"}}})
        for label in ("node-restriction.kubernetes.io/x", "node-role.kubernetes.io/worker", "foo.k8s.io/x"):
            why = f"is not allowed to modify labels: {label}"
            await refused(node.patch(NODES, "n1", {"metadata": {"labels": {label: ""}}}), why)
        await refused(node.patch(NODES, "n1", {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}), "not allowed to modify taints")
        await refused(node.delete(NODES, "n1"), "the node authorizer does not allow this")
        lease = {"metadata": {"name": "n2"}, "spec": {"holderIdentity": "n1"}}
        await refused(node.create(LEASES, lease, "kube-node-lease"), "same name as the requesting node")
        await node.create(LEASES, {**lease, "metadata": {"name": "n1"}}, "kube-node-lease")
        await refused(node.create(LEASES, lease, "default"), 'can only access leases in the "kube-node-lease" system namespace')

        await admin.create(PODS, _pod("mine", "n1"), "default")
        await admin.create(PODS, _pod("other", "n2"), "default")
        status = {"status": {"phase": "Running"}}
        await node.patch(PODS, "mine", status, "default", subresource="status")
        await refused(node.patch(PODS, "other", status, "default", subresource="status"), "can only update pod status for pods with")
        relabel = {"metadata": {"labels": {"a": "b"}}, **status}
        await refused(node.patch(PODS, "mine", relabel, "default", subresource="status"), "cannot update labels through pod status")
        await refused(node.delete(PODS, "other", "default"), "can only delete pods with spec.nodeName set to itself")
        eviction = {"metadata": {"name": "other"}}
        evict = node.create(PODS, eviction, "default", name="other", subresource="eviction")
        await refused(evict, "node n1 can only evict pods with spec.nodeName set to itself")
        await node.create(PODS, {"metadata": {"name": "mine"}}, "default", name="mine", subresource="eviction")

    run(tmp_path, scenario)


def test_mirror_pods(tmp_path):
    async def scenario(admin, node):
        await refused(node.create(PODS, _pod("m", "n1"), "default"), 'annotation, node "n1" can only create mirror pods')
        uid = (await admin.get(NODES, "n1"))["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}

        def mirror(node_name="n1", owners=(owner,), **spec):
            made = _pod("m", node_name, **spec)
            made["metadata"] |= {"annotations": MIRROR, "ownerReferences": list(owners)}
            return made

        await refused(node.create(PODS, mirror("n2"), "default"), "can only create pods with spec.nodeName set to itself")
        await refused(node.create(PODS, mirror(owners=()), "default"), "with an owner reference set to itself")
        await refused(node.create(PODS, mirror(owners=[{**owner, "uid": "x"}]), "default"), f"UID mismatch: expected x got {uid}")
        secret = [{"name": "s", "secret": {"secretName": "a"}}]
        await refused(node.create(PODS, mirror(volumes=secret), "default"), "can not create pods that reference secrets")
        await refused(node.create(PODS, mirror(serviceAccountName="default"), "default"), "that reference a service account")
        await node.create(PODS, mirror(), "default")
        await node.delete(PODS, "m", "default", grace_seconds=0)

    run(tmp_path, scenario)


def test_tokens_for_its_pods_alone(tmp_path):
    async def scenario(admin, node):
        mine = await admin.create(PODS, _pod("mine", "n1"), "default")
        other = await admin.create(PODS, _pod("other", "n2"), "default")

        def request(pod=None, **more):
            reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} if pod else None
            spec = {"boundObjectRef": reference | more} if reference else {}
            return node.create(SERVICE_ACCOUNTS, {"spec": spec}, "default", name="default", subresource="token")

        assert (await request(mine))["status"]["token"]
        await refused(request(), "node requested token not bound to a pod")
        await refused(request(other), "node requested token bound to a pod scheduled on a different node")
        await refused(request(mine, uid="x"), "does not match the UID in record")
        await admin.create(SERVICE_ACCOUNTS, {"metadata": {"name": "alone"}}, "default")
        lonely = node.create(SERVICE_ACCOUNTS, {"spec": {}}, "default", name="alone", subresource="token")
        await refused(lonely, "no relationship found")

    run(tmp_path, scenario)


def test_a_node_without_a_name_is_refused(tmp_path):
    async def scenario(admin, node):
        nameless = InProcessClient(node._server, User("kubelet", ("system:nodes", "system:authenticated")))
        await refused(nameless.get(NODES, "n1"), 'unknown node for user "kubelet"')

    run(tmp_path, scenario)
