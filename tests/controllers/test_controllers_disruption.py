"""Disruption budgets: their arithmetic as a table, and a status that follows pods and their owners."""

import pytest

import virtual_time
from atoll.client.objects import name_of
from atoll.client.resources import POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS
from atoll.controllers.disruption.budget import goal
from atoll.controllers.disruption.controller import DisruptionController
from atoll.controllers.replicaset import ReplicaSetController
from atoll.controllers.replicationcontroller import ReplicationControllerController
from controller_harness import cluster, template

GOALS = [
    ({"minAvailable": 2}, 5, 9, (5, 2)),
    ({"minAvailable": "50%"}, 3, 5, (5, 3)),
    ({"maxUnavailable": 1}, 3, 5, (5, 4)),
    ({"maxUnavailable": "30%"}, 3, 10, (10, 7)),
    ({"maxUnavailable": "34%"}, 3, 3, (3, 1)),
    ({"maxUnavailable": 7}, 3, 5, (5, 0)),
    ({}, 3, 5, (3, 0)),
]


@pytest.mark.parametrize(("spec", "pods", "wanted", "expected"), GOALS)
def test_how_many_must_stay(spec, pods, wanted, expected):
    assert goal({"spec": spec}, pods, wanted) == expected


def budget(**spec):
    return {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec}}


async def status_of(world):
    return (await world.client.get(POD_DISRUPTION_BUDGETS, "b", "default"))["status"]


def test_the_status_follows_the_pods():
    async def scenario():
        async with cluster(ReplicaSetController, DisruptionController, kubelet=True) as world:
            spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template()}
            await world.create(REPLICA_SETS, {"metadata": {"name": "web"}, "spec": spec})
            await world.create(POD_DISRUPTION_BUDGETS, budget(maxUnavailable=1))
            await world.settle()
            status = await status_of(world)
            assert (status["expectedPods"], status["currentHealthy"], status["desiredHealthy"], status["disruptionsAllowed"]) == (
                3,
                3,
                2,
                1,
            )
            await world.set_pod(world.pods()[0], ready=False)
            await world.settle()
            status = await status_of(world)
            assert (status["currentHealthy"], status["disruptionsAllowed"]) == (2, 0)
            assert status["conditions"][0]["reason"] == "InsufficientPods"

    virtual_time.run(scenario())


def test_an_eviction_is_forgotten_when_the_pod_stays():
    async def scenario():
        async with cluster(ReplicationControllerController, DisruptionController) as world:
            pod = await world.create(PODS, {"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": template()["spec"]})
            await world.set_pod(pod)
            made = await world.create(POD_DISRUPTION_BUDGETS, budget(minAvailable=0))
            await world.settle()
            evicted = {"disruptedPods": {name_of(pod): "2000-01-01T00:00:00Z"}}
            await world.client.patch(POD_DISRUPTION_BUDGETS, name_of(made), {"status": evicted}, "default", subresource="status")
            await world.settle()
            status = await status_of(world)
            assert (status["currentHealthy"], status["disruptionsAllowed"], status.get("disruptedPods")) == (1, 1, None)

    virtual_time.run(scenario())
