import asyncio

import pytest

import virtual_time
from atoll.client.objects import annotations_of, is_deleting
from atoll.client.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS
from atoll.controllers.deployment import rollout
from atoll.controllers.deployment.controller import DeploymentController
from atoll.controllers.deployment.revisions import REVISION, REVISION_HISTORY, template_hash
from atoll.controllers.replicaset import ReplicaSetController
from atoll.errors import StatusError
from controller_harness import cluster, template


def deployment(replicas=3, **spec):
    selector = {"matchLabels": {"app": "web"}}
    return {"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": selector, "template": template(), **spec}}


def image(name):
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}}


def running():
    return cluster(DeploymentController, ReplicaSetController, kubelet=True)


def get(c):
    return c.client.find(DEPLOYMENTS, "web", "default")


def sets(c):
    return sorted(c.client.all(REPLICA_SETS), key=lambda each: int(annotations_of(each)[REVISION]))


def conditions(c):
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in get(c)["status"]["conditions"]}


async def patch(c, patch):
    await c.client.patch(DEPLOYMENTS, "web", patch, "default")


def test_first_rollout():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment())
            await c.settle()
            (only,) = sets(c)
            digest = only["metadata"]["labels"]["pod-template-hash"]
            assert only["metadata"]["name"] == f"web-{digest}"
            assert only["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
            assert annotations_of(get(c))[REVISION] == "1"
            status = get(c)["status"]
            assert {key: status[key] for key in status if key != "conditions"} == {
                "replicas": 3,
                "updatedReplicas": 3,
                "readyReplicas": 3,
                "availableReplicas": 3,
                "observedGeneration": 1,
            }
            assert conditions(c) == {"Available": ("True", "MinimumReplicasAvailable"), "Progressing": ("True", "NewReplicaSetAvailable")}
            (progress,) = [entry for entry in status["conditions"] if entry["type"] == "Progressing"]
            assert progress["message"] == f'ReplicaSet "web-{digest}" has successfully progressed.'
            messages = [event["message"] for event in c.client.all(EVENTS) if event["reason"] == "ScalingReplicaSet"]
            assert messages == [f"Scaled up replica set web-{digest} from 0 to 3"]

    virtual_time.run(scenario())


def test_settled_means_no_more_writes():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment())
            await c.settle()
            before = len(c.client.actions)
            await c.settle(3600)
            assert c.client.actions[before:] == []

    virtual_time.run(scenario())


def test_rolling_update_keeps_its_two_promises():
    async def scenario():
        async with running() as c:
            await c.create(
                DEPLOYMENTS, deployment(4, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
            )
            await c.settle()
            broken = []

            async def observe():
                async for _ in c.client.watch(PODS, resource_version=str(c.client.version)):
                    alive = [pod for pod in c.client.all(PODS) if not is_deleting(pod)]
                    ready = [pod for pod in alive if any(x["type"] == "Ready" for x in pod["status"].get("conditions", ()))]
                    if len(alive) > 5 or len(ready) < 3:
                        broken.append((len(alive), len(ready)))

            watching = asyncio.create_task(observe())
            await patch(c, image("v2"))
            await c.settle(5)
            watching.cancel()
            assert broken == []
            old, new = sets(c)
            assert (old["spec"]["replicas"], new["spec"]["replicas"]) == (0, 4)
            assert annotations_of(get(c))[REVISION] == "2"
            assert conditions(c)["Progressing"] == ("True", "NewReplicaSetAvailable")
            assert all(pod["spec"]["containers"][0]["image"] == "v2" for pod in c.pods())

    virtual_time.run(scenario())


def test_undo_brings_the_old_set_back_under_a_new_number():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment())
            await c.settle()
            await patch(c, image("v2"))
            await c.settle()
            first = sets(c)[0]["metadata"]["name"]
            await patch(c, image("hello-world"))  # what kubectl rollout undo writes
            await c.settle()
            back = sets(c)[-1]
            assert back["metadata"]["name"] == first
            assert (annotations_of(back)[REVISION], annotations_of(back)[REVISION_HISTORY]) == ("3", "1")
            assert len(sets(c)) == 2
            assert back["spec"]["replicas"] == 3

    virtual_time.run(scenario())


def test_recreate_ends_the_old_before_the_new_begins():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment(2, strategy={"type": "Recreate"}))
            await c.settle()
            c.kubelet.cancel()
            for pod in c.pods():  # a kubelet that takes its time
                await c.client.patch(PODS, pod["metadata"]["name"], {"spec": {"nodeName": "n1"}}, "default")
            await patch(c, image("v2"))
            await c.settle()
            assert [each["spec"]["replicas"] for each in sets(c)] == [0]
            assert len(c.client.all(PODS)) == 2
            for pod in c.client.all(PODS):
                await c.client.delete(PODS, pod["metadata"]["name"], "default", grace_seconds=0)
            await c.settle()
            assert [each["spec"]["replicas"] for each in sets(c)] == [0, 2]

    virtual_time.run(scenario())


def test_pause_and_resume():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment())
            await c.settle()
            await patch(c, {"spec": {"paused": True}})
            await patch(c, image("v2"))
            await c.settle()
            assert len(sets(c)) == 1
            assert conditions(c)["Progressing"] == ("Unknown", "DeploymentPaused")
            await patch(c, {"spec": {"replicas": 5}})
            await c.settle()
            assert sets(c)[0]["spec"]["replicas"] == 5
            await patch(c, {"spec": {"paused": False}})
            await c.settle()
            assert [each["spec"]["replicas"] for each in sets(c)] == [0, 5]
            assert conditions(c)["Progressing"] == ("True", "NewReplicaSetAvailable")

    virtual_time.run(scenario())


def test_stuck_rollout_is_told_after_the_deadline():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment(2, progressDeadlineSeconds=60))
            await c.settle()
            c.kubelet.cancel()
            await patch(c, image("broken"))
            await c.settle(30)
            assert conditions(c)["Progressing"] == ("True", "ReplicaSetUpdated")
            await c.settle(60)
            assert conditions(c)["Progressing"] == ("False", "ProgressDeadlineExceeded")
            assert get(c)["status"]["availableReplicas"] == 2

    virtual_time.run(scenario())


def test_history_limit():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment(1, revisionHistoryLimit=2))
            for number in range(6):
                await patch(c, image(f"v{number}"))
                await c.settle()
            assert [annotations_of(each)[REVISION] for each in sets(c)] == ["5", "6", "7"]

    virtual_time.run(scenario())


def test_scale_to_zero_and_back():
    async def scenario():
        async with running() as c:
            await c.create(DEPLOYMENTS, deployment())
            for replicas in (0, 4):
                await patch(c, {"spec": {"replicas": replicas}})
                await c.settle()
                assert len(c.pods()) == replicas
                assert get(c)["status"].get("availableReplicas", 0) == replicas

    virtual_time.run(scenario())


def test_a_foreign_set_under_our_name_changes_the_hash():
    async def scenario():
        async with running() as c:
            body = deployment(1)
            name = f"web-{template_hash(body['spec']['template'])}"
            await c.create(
                REPLICA_SETS,
                {
                    "metadata": {"name": name},
                    "spec": {"replicas": 0, "selector": {"matchLabels": {"x": "y"}}, "template": template({"x": "y"})},
                },
            )
            await c.create(DEPLOYMENTS, body)
            await c.settle()
            assert get(c)["status"]["collisionCount"] == 1
            assert len(c.pods()) == 1

    virtual_time.run(scenario())


def test_refused_replica_set_is_told():
    async def scenario():
        async with running() as c:
            c.client.fail("create replicasets *", StatusError(403, "Forbidden", "exceeded quota"), times=2)
            await c.create(DEPLOYMENTS, deployment(1))
            await c.settle(0.001)
            assert conditions(c)["Progressing"] == ("False", "ReplicaSetCreateError")
            await c.settle()
            assert conditions(c)["Progressing"] == ("True", "NewReplicaSetAvailable")

    virtual_time.run(scenario())


# Planning


def body(replicas, surge="25%", unavailable="25%"):
    return {
        "metadata": {"name": "d"},
        "spec": {"replicas": replicas, "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}},
    }


def rs(name, replicas, available=None, desired=None, maximum=None):
    annotations = {rollout.DESIRED_REPLICAS: str(desired or replicas), rollout.MAX_REPLICAS: str(maximum or replicas)}
    return {
        "metadata": {"name": name, "creationTimestamp": name, "annotations": annotations},
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": replicas if available is None else available},
    }


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (10, 0, 0, (0, 1)),
        (4, 2, "50%", (2, 2)),
        (3, 0, 10, (0, 3)),
        (0, "25%", "25%", (0, 0)),
    ],
)
def test_fenceposts(replicas, surge, unavailable, expected):
    assert rollout.fenceposts(body(replicas, surge, unavailable)) == expected


def test_new_set_grows_within_the_surge():
    d = body(10, 3, 2)
    assert rollout.new_set_size(d, [rs("a", 10)], 0) == 3
    assert rollout.new_set_size(d, [rs("a", 8), rs("b", 3)], 3) == 5
    assert rollout.new_set_size(d, [rs("b", 12)], 12) == 10


def plan(steps):
    return {step.replica_set["metadata"]["name"]: step.replicas for step in steps}


def test_old_sets_shrink_broken_pods_first():
    d = body(10, 0, 2)
    assert plan(rollout.shrink_old(d, rs("n", 0), [rs("a", 4, available=1), rs("b", 6)])) == {"a": 2}
    assert plan(rollout.shrink_old(d, rs("n", 0), [rs("a", 10)])) == {"a": 8}
    assert rollout.shrink_old(d, rs("n", 2, available=0), [rs("a", 8)]) == []


def test_scaling_in_mid_rollout_is_shared_in_proportion():
    d = body(20, 0, 1)
    steps = plan(rollout.scale(d, rs("n", 5, desired=10, maximum=10), [rs("o", 5, desired=10, maximum=10)]))
    assert steps == {"n": 10, "o": 10}
    down = plan(rollout.scale(body(5, 0, 1), rs("n", 4, desired=10, maximum=10), [rs("o", 6, desired=10, maximum=10)]))
    assert sum(down.values()) == 5


def test_hash_is_stable_and_safe():
    one = template_hash(template())
    assert one == template_hash(template())
    assert one != template_hash(template(), 1)
    assert set(one) <= set("bcdfghjklmnpqrstvwxz2456789")
