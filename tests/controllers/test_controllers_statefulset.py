import virtual_time
from atoll.client.objects import labels_of
from atoll.client.resources import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from atoll.controllers.base import Config
from atoll.controllers.garbage.controller import GarbageCollector
from atoll.controllers.pods import BURST
from atoll.controllers.statefulset.controller import StatefulSetController
from atoll.controllers.statefulset.plan import plan
from controller_harness import cluster, template


def stateful_set(replicas=3, claims=(), **spec):
    templates = [
        {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
        for name in claims
    ]
    body = {
        "replicas": replicas,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(),
        "volumeClaimTemplates": templates,
    }
    return {"metadata": {"name": "db"}, "spec": body | spec}


def names(c):
    return sorted(pod["metadata"]["name"] for pod in c.pods())


def images(c):
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in c.pods()}


def status(c):
    return c.client.find(STATEFUL_SETS, "db", "default")["status"]


async def patch(c, **spec):
    await c.client.patch(STATEFUL_SETS, "db", {"spec": spec}, "default")


def image(name):
    return {"spec": {"containers": [{"name": "c", "image": name}]}}


def test_up_in_order_down_in_reverse():
    async def scenario():
        async with cluster(StatefulSetController) as c:
            await c.create(STATEFUL_SETS, stateful_set(claims=["data"]))
            for step in (1, 2, 3):
                await c.settle()
                assert names(c) == [f"db-{number}" for number in range(step)]
                await c.settle(60)
                await c.set_pod(c.client.find(PODS, f"db-{step - 1}", "default"))
            await c.settle()
            pod = c.client.find(PODS, "db-1", "default")
            assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
            assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
            assert labels_of(pod)["statefulset.kubernetes.io/pod-name"] == "db-1"
            assert labels_of(pod)["apps.kubernetes.io/pod-index"] == "1"
            assert status(c)["readyReplicas"] == status(c)["currentReplicas"] == status(c)["updatedReplicas"] == 3
            await patch(c, replicas=1)
            await c.settle()
            assert names(c) == ["db-0"]
            claims = sorted(claim["metadata"]["name"] for claim in c.client.all(PERSISTENT_VOLUME_CLAIMS))
            assert claims == ["data-db-0", "data-db-1", "data-db-2"]  # kept

    virtual_time.run(scenario())


def test_scaling_down_waits_for_each_pod_to_end():
    async def scenario():
        async with cluster(StatefulSetController, kubelet=True) as c:
            await c.create(STATEFUL_SETS, stateful_set())
            await c.settle()
            c.kubelet.cancel()
            for number in range(3):
                await c.client.patch(PODS, f"db-{number}", {"spec": {"nodeName": "n1"}}, "default")
            await patch(c, replicas=0)
            await c.settle(100)
            assert names(c) == ["db-0", "db-1"]
            await c.client.delete(PODS, "db-2", "default", grace_seconds=0)
            await c.settle()
            assert names(c) == ["db-0"]

    virtual_time.run(scenario())


def test_parallel_makes_all_at_once():
    async def scenario():
        async with cluster(StatefulSetController) as c:
            await c.create(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel", ordinals={"start": 5}))
            await c.settle()
            assert names(c) == ["db-5", "db-6", "db-7"]

    virtual_time.run(scenario())


def test_parallel_makes_many_in_bursts():
    async def scenario():
        async with cluster(StatefulSetController) as c:
            await c.create(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel", replicas=BURST + 20))
            await c.settle()
            assert len(c.pods()) == BURST + 20

    assert len(plan(stateful_set(podManagementPolicy="Parallel", replicas=2**31 - 1), {}, "", 0.0).create) == BURST
    virtual_time.run(scenario())


def test_deleted_and_finished_pods_come_back_under_their_names():
    async def scenario():
        async with cluster(StatefulSetController, kubelet=True) as c:
            await c.create(STATEFUL_SETS, stateful_set(2))
            await c.settle()
            before = c.client.find(PODS, "db-0", "default")["metadata"]["uid"]
            await c.client.delete(PODS, "db-0", "default")
            await c.set_pod(c.client.find(PODS, "db-1", "default"), "Failed", ready=False)
            await c.settle()
            assert names(c) == ["db-0", "db-1"]
            assert c.client.find(PODS, "db-0", "default")["metadata"]["uid"] != before
            assert status(c)["readyReplicas"] == 2

    virtual_time.run(scenario())


def test_rolling_update_from_the_top_and_partition():
    async def scenario():
        async with cluster(StatefulSetController, kubelet=True) as c:
            await c.create(STATEFUL_SETS, stateful_set(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))
            await c.settle()
            first = status(c)["currentRevision"]
            await patch(c, template=image("v2"))
            await c.settle()
            assert images(c) == {"db-0": "hello-world", "db-1": "hello-world", "db-2": "v2"}
            assert (status(c)["currentRevision"], status(c)["updatedReplicas"]) == (first, 1)
            await c.client.delete(PODS, "db-0", "default")
            await c.settle()
            assert images(c)["db-0"] == "hello-world"  # below the partition the old revision is kept
            await patch(c, updateStrategy={"rollingUpdate": {"partition": 0}})
            await c.settle()
            assert set(images(c).values()) == {"v2"}
            assert status(c)["currentRevision"] == status(c)["updateRevision"] != first

    virtual_time.run(scenario())


def test_a_broken_update_stops_at_the_first_pod():
    async def scenario():
        async with cluster(StatefulSetController, kubelet=True) as c:
            await c.create(STATEFUL_SETS, stateful_set())
            await c.settle()
            c.kubelet.cancel()
            await patch(c, template=image("broken"))
            await c.settle(600)
            assert images(c) == {"db-0": "hello-world", "db-1": "hello-world", "db-2": "broken"}

    virtual_time.run(scenario())


def test_claims_go_with_pod_or_set_when_asked():
    async def scenario():
        config = Config(resources=lambda: (STATEFUL_SETS, PODS, PERSISTENT_VOLUME_CLAIMS, CONFIG_MAPS))
        async with cluster(StatefulSetController, GarbageCollector, kubelet=True, config=config) as c:
            policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
            await c.create(STATEFUL_SETS, stateful_set(2, ["data"], persistentVolumeClaimRetentionPolicy=policy))
            await c.settle()
            assert len(c.client.all(PERSISTENT_VOLUME_CLAIMS)) == 2
            c.kubelet.cancel()
            await c.client.patch(PODS, "db-1", {"spec": {"nodeName": "n1"}}, "default")
            await patch(c, replicas=1)
            await c.settle()
            await c.client.delete(PODS, "db-1", "default", grace_seconds=0)
            await c.settle()
            assert [claim["metadata"]["name"] for claim in c.client.all(PERSISTENT_VOLUME_CLAIMS)] == ["data-db-0"]
            await c.client.delete(STATEFUL_SETS, "db", "default")
            await c.settle()
            assert c.client.all(PERSISTENT_VOLUME_CLAIMS) == []

    virtual_time.run(scenario())


def test_settled_means_no_more_writes():
    async def scenario():
        async with cluster(StatefulSetController, kubelet=True) as c:
            await c.create(STATEFUL_SETS, stateful_set(2, ["data"]))
            await c.settle(10)
            writes = len(c.client.actions)
            await c.settle(1000)
            assert len(c.client.actions) == writes

    virtual_time.run(scenario())
