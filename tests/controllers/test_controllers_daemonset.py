import virtual_time
from atoll.client.objects import labels_of
from atoll.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, EVENTS, NODES, PODS
from atoll.controllers.daemonset.controller import DaemonSetController
from atoll.controllers.daemonset.placement import node_of
from controller_harness import cluster, template

RUNNING = "Running"


def daemon_set(strategy=None, **spec):
    body = {"selector": {"matchLabels": {"app": "web"}}, "template": template(**spec)}
    if strategy:
        body["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": strategy}
    return {"metadata": {"name": "d"}, "spec": body}


def node(name, labels=None, **spec):
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def places(c):
    return sorted(node_of(pod) for pod in c.pods())


def status(c):
    return c.client.find(DAEMON_SETS, "d", "default")["status"]


def images(c):
    return sorted(pod["spec"]["containers"][0]["image"] for pod in c.pods())


async def image(c, name):
    await c.client.patch(DAEMON_SETS, "d", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}}, "default")


def test_one_pod_on_every_node_that_will_have_it():
    async def scenario():
        async with cluster(DaemonSetController, kubelet=True) as c:
            await c.create(NODES, node("a"))
            await c.create(NODES, node("b", taints=[{"key": "gpu", "effect": "NoSchedule"}]))
            await c.create(
                NODES, node("cordoned", unschedulable=True, taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])
            )
            await c.create(DAEMON_SETS, daemon_set())
            await c.settle()
            assert places(c) == ["a", "cordoned"]
            await c.create(NODES, node("d"))
            await c.settle()
            assert places(c) == ["a", "cordoned", "d"]
            assert status(c)["desiredNumberScheduled"] == status(c)["numberReady"] == status(c)["updatedNumberScheduled"] == 3
            await c.client.delete(NODES, "d")
            await c.settle()
            assert places(c) == ["a", "cordoned"]

    virtual_time.run(scenario())


def test_labels_move_pods():
    async def scenario():
        async with cluster(DaemonSetController, kubelet=True) as c:
            await c.create(NODES, node("a", {"disk": "ssd"}))
            await c.create(NODES, node("b"))
            await c.create(DAEMON_SETS, daemon_set(nodeSelector={"disk": "ssd"}))
            await c.settle()
            assert places(c) == ["a"]
            await c.client.patch(NODES, "b", {"metadata": {"labels": {"disk": "ssd"}}})
            await c.client.patch(NODES, "a", {"metadata": {"labels": {"disk": "hdd"}}})
            await c.settle()
            assert places(c) == ["b"]

    virtual_time.run(scenario())


def test_rolling_update_one_at_a_time():
    async def scenario():
        async with cluster(DaemonSetController, kubelet=True) as c:
            for number in range(3):
                await c.create(NODES, node(f"n{number}"))
            await c.create(DAEMON_SETS, daemon_set())
            await c.settle()
            first = labels_of(c.pods()[0])["controller-revision-hash"]
            c.kubelet.cancel()
            await image(c, "v2")
            await c.settle()
            assert images(c) == ["hello-world", "hello-world", "v2"]  # waits for the new one to become available
            for _ in range(3):
                for pod in c.pods():
                    if pod["status"]["phase"] == "Pending":
                        await c.set_pod(pod)
                await c.settle()
            assert images(c) == ["v2"] * 3
            assert labels_of(c.pods()[0])["controller-revision-hash"] != first
            assert sorted(each["revision"] for each in c.client.all(CONTROLLER_REVISIONS)) == [1, 2]
            assert status(c)["numberUnavailable" if "numberUnavailable" in status(c) else "numberAvailable"] == 3

    virtual_time.run(scenario())


def test_surge_brings_the_new_up_first():
    async def scenario():
        async with cluster(DaemonSetController, kubelet=True) as c:
            await c.create(NODES, node("a"))
            await c.create(DAEMON_SETS, daemon_set({"maxSurge": 1, "maxUnavailable": 0}))
            await c.settle()
            c.kubelet.cancel()
            await image(c, "v2")
            await c.settle()
            assert images(c) == ["hello-world", "v2"]
            for pod in c.pods():
                await c.set_pod(pod)
            await c.settle()
            assert images(c) == ["v2"]

    virtual_time.run(scenario())


def test_on_delete_waits_for_the_user():
    async def scenario():
        async with cluster(DaemonSetController, kubelet=True) as c:
            await c.create(NODES, node("a"))
            body = daemon_set()
            body["spec"]["updateStrategy"] = {"type": "OnDelete"}
            await c.create(DAEMON_SETS, body)
            await c.settle()
            await image(c, "v2")
            await c.settle()
            assert images(c) == ["hello-world"]
            await c.client.delete(PODS, c.pods()[0]["metadata"]["name"], "default")
            await c.settle()
            assert images(c) == ["v2"]

    virtual_time.run(scenario())


def test_failed_pods_are_replaced_ever_more_slowly():
    async def scenario():
        async with cluster(DaemonSetController) as c:
            await c.create(NODES, node("a"))
            await c.create(DAEMON_SETS, daemon_set())
            await c.settle()
            for _ in range(200):
                for pod in c.pods():
                    if pod["status"]["phase"] == "Pending":
                        await c.set_pod(pod, "Failed", ready=False)
                await c.settle(0.5)
            assert 4 <= c.client.count("create pods *") <= 10
            assert "FailedDaemonPod" in {event["reason"] for event in c.client.all(EVENTS)}

    virtual_time.run(scenario())


def test_a_rollback_renumbers_the_old_revision():
    async def scenario():
        async with cluster(DaemonSetController, kubelet=True) as c:
            await c.create(NODES, node("a"))
            await c.create(DAEMON_SETS, daemon_set())
            await c.settle()
            for name in ("v2", "hello-world"):
                await image(c, name)
                await c.settle()
            assert sorted(each["revision"] for each in c.client.all(CONTROLLER_REVISIONS)) == [2, 3]
            assert images(c) == ["hello-world"]
            writes = len(c.client.actions)
            await c.settle(1000)
            assert len(c.client.actions) == writes

    virtual_time.run(scenario())
