import virtual_time
from atoll.client.objects import is_controlled_by, labels_of
from atoll.client.resources import EVENTS, PODS, REPLICA_SETS
from atoll.controllers.pods import rank_for_deletion
from atoll.controllers.replicaset import ReplicaSetController, slow_start
from atoll.errors import StatusError
from controller_harness import cluster, template


def replica_set(replicas=3, name="web", **spec):
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec},
    }


def status_of(c, name="web"):
    return c.client.find(REPLICA_SETS, name, "default")["status"]


def test_makes_its_pods_and_counts_them():
    async def scenario():
        async with cluster(ReplicaSetController) as c:
            owner = await c.create(REPLICA_SETS, replica_set())
            await c.settle()
            assert len(c.pods()) == 3
            assert all(is_controlled_by(pod, owner) and labels_of(pod) == {"app": "web"} for pod in c.pods())
            assert status_of(c) == {"replicas": 3, "fullyLabeledReplicas": 3, "observedGeneration": 1}
            for pod in c.pods()[:2]:
                await c.set_pod(pod)
            await c.settle()
            assert (status_of(c)["readyReplicas"], status_of(c)["availableReplicas"]) == (2, 2)
            assert {event["reason"] for event in c.client.all(EVENTS)} == {"SuccessfulCreate"}

    virtual_time.run(scenario())


def test_replaces_deleted_and_finished_pods_and_scales():
    async def scenario():
        async with cluster(ReplicaSetController, kubelet=True) as c:
            await c.create(REPLICA_SETS, replica_set())
            await c.settle()
            first, second, _ = c.pods()
            await c.client.delete(PODS, first["metadata"]["name"], "default")
            await c.set_pod(second, "Failed", ready=False)
            await c.settle()
            active = [pod for pod in c.pods() if pod["status"]["phase"] == "Running"]
            assert len(active) == 3
            for replicas in (10, 2, 0):
                await c.client.patch(REPLICA_SETS, "web", {"spec": {"replicas": replicas}}, "default")
                await c.settle()
                assert len([pod for pod in c.pods() if pod["status"]["phase"] == "Running"]) == replicas
                assert status_of(c)["replicas"] == replicas

    virtual_time.run(scenario())


def test_adopts_orphans_and_releases_what_no_longer_matches():
    async def scenario():
        async with cluster(ReplicaSetController) as c:
            await c.create(PODS, {"metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": {}})
            owner = await c.create(REPLICA_SETS, replica_set(2))
            await c.settle()
            assert len(c.pods()) == 2
            assert is_controlled_by(c.client.find(PODS, "orphan", "default"), owner)
            await c.client.patch(PODS, "orphan", {"metadata": {"labels": {"app": "debug"}}}, "default")
            await c.settle()
            assert not c.client.find(PODS, "orphan", "default")["metadata"].get("ownerReferences")
            assert len([pod for pod in c.pods() if is_controlled_by(pod, owner)]) == 2

    virtual_time.run(scenario())


def test_an_orphan_made_later_is_adopted_and_the_surplus_deleted():
    async def scenario():
        async with cluster(ReplicaSetController) as c:
            await c.create(REPLICA_SETS, replica_set(1))
            await c.settle()
            await c.set_pod(c.pods()[0])
            await c.create(PODS, {"metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": {}})
            await c.settle()
            assert [pod["metadata"]["name"] for pod in c.pods()] != ["orphan"]
            assert len(c.pods()) == 1

    virtual_time.run(scenario())


def test_refused_creation_is_reported_and_tried_again():
    async def scenario():
        async with cluster(ReplicaSetController) as c:
            c.client.fail("create pods *", StatusError(403, "Forbidden", "exceeded quota: q"), times=3)
            await c.create(REPLICA_SETS, replica_set(5))
            await c.settle(0.004)
            (condition,) = status_of(c)["conditions"]
            assert (condition["reason"], condition["message"]) == ("FailedCreate", "exceeded quota: q")
            await c.settle(5)
            assert len(c.pods()) == 5
            assert "conditions" not in status_of(c)
            assert any(event["reason"] == "FailedCreate" for event in c.client.all(EVENTS))

    virtual_time.run(scenario())


def test_a_terminating_namespace_is_left_alone():
    async def scenario():
        async with cluster(ReplicaSetController) as c:
            error = StatusError(403, "Forbidden", "being terminated", {"causes": [{"reason": "NamespaceTerminating"}]})
            c.client.fail("create pods *", error, times=1000)
            await c.create(REPLICA_SETS, replica_set(5))
            await c.settle(60)
            assert c.client.count("create pods *") <= 2
            assert c.client.all(EVENTS) == []

    virtual_time.run(scenario())


def test_min_ready_seconds_delays_availability():
    async def scenario():
        async with cluster(ReplicaSetController, kubelet=True) as c:
            await c.create(REPLICA_SETS, replica_set(1, minReadySeconds=30))
            await c.settle(20)
            assert "availableReplicas" not in status_of(c)
            await c.settle(15)
            assert status_of(c)["availableReplicas"] == 1

    virtual_time.run(scenario())


def test_slow_start_stops_at_the_first_failing_batch():
    async def scenario():
        calls = 0

        async def create():
            nonlocal calls
            calls += 1
            if calls > 3:
                raise StatusError(500, "InternalError", "no")

        assert (await slow_start(100, create))[0] == 3
        assert calls == 7

    virtual_time.run(scenario())


def pod(name, node="n1", phase="Running", ready="2026-01-01T00:00:00Z", restarts=0, cost=None, created="2026-01-01T00:00:00Z"):
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost} if cost else {},
        },
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ready}] if ready else [],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


def test_deletion_order():
    kept = pod("kept", node="n3")
    ordered = [
        pod("unassigned", node=None, phase="Pending", ready=None),
        pod("pending", node="n3", phase="Pending", ready=None),
        pod("not-ready", node="n3", ready=None),
        pod("cheap", node="n3", cost="-5"),
        pod("young", node="n3", ready="2026-01-01T01:00:00Z"),
        pod("restarted", node="n3", restarts=4),
        pod("lately-made", node="n3", created="2026-01-01T00:30:00Z"),
        kept,
    ]
    names = [each["metadata"]["name"] for each in rank_for_deletion(list(reversed(ordered)), ordered)]
    assert names == [each["metadata"]["name"] for each in ordered]


def test_the_crowded_node_gives_first():
    crowd = [pod("a", node="n1"), pod("b", node="n1"), pod("c", node="n2")]
    assert rank_for_deletion(crowd, crowd)[-1]["metadata"]["name"] == "c"
