import pytest

import virtual_time
from atoll.client.nodes import taints_of
from atoll.client.objects import condition_of, copy_of
from atoll.client.resources import EVENTS, LEASES, NODES, PODS
from atoll.controllers.base import Config
from atoll.controllers.nodes.eviction import TaintEvictionController, due
from atoll.controllers.nodes.lifecycle import NodeLifecycleController
from atoll.controllers.nodes.podgc import PodGarbageCollector
from atoll.units import timestamp_micro
from controller_harness import cluster

NODE = {"metadata": {"name": "n1"}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
LEASE = {"metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "n1"}}


def pod(name="p", **spec):
    return {"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": [], **spec}}


async def renew(c, times=1):
    for _ in range(times):
        now = timestamp_micro(int(virtual_time.clock() * 1e9))
        await c.client.patch(LEASES, "n1", {"spec": {"renewTime": now}}, "kube-node-lease")
        await c.settle(10)


def ready(c):
    return condition_of(c.client.find(NODES, "n1"), "Ready")


def taints(c):
    return [(taint["key"], taint["effect"]) for taint in taints_of(c.client.find(NODES, "n1"))]


UNREACHABLE = "node.kubernetes.io/unreachable"


def test_a_silent_node_becomes_unknown_and_comes_back():
    async def scenario():
        async with cluster(NodeLifecycleController) as c:
            await c.create(NODES, NODE)
            await c.client.create(LEASES, LEASE)
            await c.set_pod(await c.create(PODS, pod()))
            await renew(c, 20)
            assert ready(c)["status"] == "True"
            assert taints(c) == []
            writes = len(c.client.actions)
            await c.settle(30)
            assert len(c.client.actions) == writes
            await c.settle(20)
            assert (ready(c)["status"], ready(c)["reason"]) == ("Unknown", "NodeStatusUnknown")
            assert condition_of(c.client.find(NODES, "n1"), "DiskPressure")["reason"] == "NodeStatusNeverUpdated"
            assert taints(c) == [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
            assert condition_of(c.client.find(PODS, "p", "default"), "Ready")["status"] == "False"
            assert "NodeNotReady" in [event["reason"] for event in c.client.all(EVENTS)]
            changed = copy_of(c.client.find(NODES, "n1"))
            changed["status"] = NODE["status"]
            await c.client.update(NODES, changed, subresource="status")
            await renew(c, 2)
            assert taints(c) == []

    virtual_time.run(scenario())


def test_conditions_and_cordon_become_taints_and_foreign_ones_stay():
    async def scenario():
        async with cluster(NodeLifecycleController) as c:
            foreign = {"key": "gpu", "effect": "NoSchedule"}
            sick = [{"type": "Ready", "status": "False"}, {"type": "MemoryPressure", "status": "True"}]
            await c.create(
                NODES, {"metadata": {"name": "n1"}, "spec": {"taints": [foreign], "unschedulable": True}, "status": {"conditions": sick}}
            )
            await c.settle()
            assert taints(c) == [
                ("gpu", "NoSchedule"),
                ("node.kubernetes.io/not-ready", "NoSchedule"),
                ("node.kubernetes.io/not-ready", "NoExecute"),
                ("node.kubernetes.io/memory-pressure", "NoSchedule"),
                ("node.kubernetes.io/unschedulable", "NoSchedule"),
            ]
            await c.client.patch(NODES, "n1", {"spec": {"unschedulable": None}})
            await c.client.patch(NODES, "n1", {"status": NODE["status"]}, subresource="status")
            await c.settle()
            assert taints(c) == [("gpu", "NoSchedule")]

    virtual_time.run(scenario())


TAINT = {"key": "k", "effect": "NoExecute", "timeAdded": "1970-01-01T00:16:40Z"}  # at 1000


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], 1010.0),
        ([{"key": "k", "operator": "Exists"}], None),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}], 1300.0),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 60}], 1060.0),
        ([{"key": "other", "operator": "Exists"}], 1010.0),
    ],
)
def test_due(tolerations, expected):
    assert due(pod(tolerations=tolerations), [TAINT, {"key": "x", "effect": "NoSchedule"}], 1010.0) == expected


def test_eviction_now_later_and_never():
    async def scenario():
        async with cluster(TaintEvictionController) as c:
            await c.create(NODES, NODE)
            await c.create(PODS, pod("now"))
            await c.create(PODS, pod("later", tolerations=[{"operator": "Exists", "tolerationSeconds": 300}]))
            await c.create(PODS, pod("never", tolerations=[{"operator": "Exists"}]))
            await c.settle()
            await c.client.patch(NODES, "n1", {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})
            await c.settle(5)
            assert sorted(each["metadata"]["name"] for each in c.pods()) == ["later", "never"]
            gone = c.client.find(PODS, "now", "default")
            assert condition_of(gone, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
            await c.settle(310)
            assert [each["metadata"]["name"] for each in c.pods()] == ["never"]

    virtual_time.run(scenario())


def test_a_taint_taken_off_in_time_saves_the_pod():
    async def scenario():
        async with cluster(TaintEvictionController) as c:
            await c.create(NODES, {**NODE, "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})
            await c.create(PODS, pod("later", tolerations=[{"operator": "Exists", "tolerationSeconds": 300}]))
            await c.settle(100)
            await c.client.patch(NODES, "n1", {"spec": {"taints": None}})
            await c.settle(500)
            assert len(c.pods()) == 1

    virtual_time.run(scenario())


def test_pods_of_a_vanished_node_fail_and_go_after_the_quarantine():
    async def scenario():
        async with cluster(PodGarbageCollector) as c:
            await c.create(NODES, NODE)
            await c.create(PODS, pod())
            await c.settle()
            await c.client.delete(NODES, "n1")
            await c.settle(30)
            assert len(c.pods()) == 1
            await c.settle(20)
            assert c.client.all(PODS) == []

    virtual_time.run(scenario())


def test_a_node_that_comes_back_in_time_keeps_its_pods():
    async def scenario():
        async with cluster(PodGarbageCollector) as c:
            await c.create(PODS, pod())
            await c.settle(30)
            await c.create(NODES, NODE)
            await c.settle(100)
            assert len(c.pods()) == 1

    virtual_time.run(scenario())


def test_too_many_finished_pods():
    async def scenario():
        async with cluster(PodGarbageCollector, config=Config(terminated_pod_threshold=2)) as c:
            await c.create(NODES, NODE)
            for number in range(5):
                await c.set_pod(await c.create(PODS, pod(f"p{number}")), "Succeeded", ready=False)
                await c.settle(1)
            await c.settle()
            assert [each["metadata"]["name"] for each in c.client.all(PODS)] == ["p3", "p4"]

    virtual_time.run(scenario())
