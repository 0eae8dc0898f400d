import asyncio
from contextlib import asynccontextmanager

import virtual_time
from atoll.client.factory import InformerFactory
from atoll.client.objects import annotations_of, condition_of, copy_of
from atoll.client.resources import EVENTS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from atoll.client.volumes import SELECTED_NODE
from atoll.errors import StatusError, Unavailable
from atoll.scheduler.scheduler import Scheduler
from fake_cluster import FakeClient


@asynccontextmanager
async def running():
    client = FakeClient(virtual_time.clock)
    informers = InformerFactory(client)
    scheduler = Scheduler(client, informers, clock=virtual_time.clock, jitter=lambda: 0.0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informers.run()), group.create_task(scheduler.run())]
        try:
            await asyncio.sleep(1)
            yield client
            client.check_unchanged()
        finally:
            for task in tasks:
                task.cancel()


def node(name="n1", cpu="2", **spec):
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    }


def pod(name, cpu="1", priority=0, **spec):
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], "priority": priority, **spec}}


async def create(client, name, **spec):
    return await client.create(PODS, pod(name, **spec), "default")


def place(client, name):
    return client.find(PODS, name, "default")["spec"].get("nodeName")


def verdict(client, name):
    condition = condition_of(client.find(PODS, name, "default"), "PodScheduled")
    return condition["status"], condition.get("reason"), condition.get("message")


def events(client):
    return [(event["reason"], event["message"]) for event in client.all(EVENTS)]


def test_binds_and_says_so():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node())
            await create(client, "a")
            await asyncio.sleep(0.1)
            assert place(client, "a") == "n1"
            await asyncio.sleep(1)
            assert events(client) == [("Scheduled", "Successfully assigned default/a to n1")]
            await create(client, "foreign", schedulerName="other")
            await asyncio.sleep(1)
            assert place(client, "foreign") is None

    virtual_time.run(scenario())


def test_what_does_not_fit_is_told_and_comes_back_when_room_is_made():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node())
            for name in ("a", "b", "c"):
                await create(client, name)
            await asyncio.sleep(1)
            assert [place(client, name) for name in ("a", "b", "c")] == ["n1", "n1", None]
            preemption = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            message = f"0/1 nodes are available: 1 Insufficient cpu. {preemption}"
            assert verdict(client, "c") == ("False", "Unschedulable", message)
            assert ("FailedScheduling", message) in events(client)
            await asyncio.sleep(100)
            writes = len(client.actions)
            await asyncio.sleep(100)
            assert len(client.actions) == writes
            await client.delete(PODS, "a", "default", grace_seconds=0)
            await asyncio.sleep(0.1)
            assert place(client, "c") == "n1"

    virtual_time.run(scenario())


def test_a_finished_pod_gives_its_room_back():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(cpu="1"))
            first = await create(client, "a")
            await asyncio.sleep(1)
            await create(client, "b")
            await asyncio.sleep(10)
            done = copy_of(await client.get(PODS, first["metadata"]["name"], "default"))
            done["status"]["phase"] = "Succeeded"
            await client.update(PODS, done, subresource="status")
            await asyncio.sleep(1)
            assert place(client, "b") == "n1"

    virtual_time.run(scenario())


def test_node_heartbeats_wake_nobody_but_an_uncordon_does():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(unschedulable=True))
            await create(client, "a")
            await asyncio.sleep(20)
            before = len(client.actions)
            for number in range(5):
                await client.patch(NODES, "n1", {"status": {"conditions": [{"type": "Ready", "beat": number}]}}, subresource="status")
                await asyncio.sleep(10)
            assert len(client.actions) == before + 5
            await client.patch(NODES, "n1", {"spec": {"unschedulable": None}})
            await asyncio.sleep(0.1)
            assert place(client, "a") == "n1"

    virtual_time.run(scenario())


def test_priority_goes_first_and_a_burst_never_overcommits():
    async def scenario():
        async with running() as client:
            for number in range(60):
                await create(client, f"low-{number}", cpu="100m")
            await create(client, "high", cpu="100m", priority=10)
            await asyncio.sleep(30)
            await client.create(NODES, node(cpu="2"))
            await asyncio.sleep(60)
            placed = [each["metadata"]["name"] for each in client.all(PODS) if each["spec"].get("nodeName")]
            assert len(placed) == 20
            assert "high" in placed

    virtual_time.run(scenario())


def test_gates():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node())
            await create(client, "a", schedulingGates=[{"name": "example.org/wait"}])
            await asyncio.sleep(10)
            assert place(client, "a") is None
            assert verdict(client, "a")[1] == "SchedulingGated"
            await client.patch(PODS, "a", {"spec": {"schedulingGates": None}}, "default")
            await asyncio.sleep(2)
            assert place(client, "a") == "n1"

    virtual_time.run(scenario())


def test_a_refused_binding_is_tried_again_and_its_room_not_lost():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(cpu="1"))
            client.fail("create pods/binding *", Unavailable("no answer"), times=2)
            await create(client, "a")
            await asyncio.sleep(20)
            assert place(client, "a") == "n1"
            client.fail("create pods/binding *", StatusError(404, "NotFound", "gone"))
            await client.create(NODES, node("n2", cpu="1"))
            await create(client, "b")
            await asyncio.sleep(0.01)
            await client.delete(PODS, "b", "default")
            await create(client, "c")
            await asyncio.sleep(20)
            assert place(client, "c") == "n2"

    virtual_time.run(scenario())


def test_preemption_makes_room():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(cpu="1"))
            await create(client, "low")
            await asyncio.sleep(1)
            await create(client, "high", priority=100)
            await asyncio.sleep(5)
            low = client.find(PODS, "low", "default")
            assert low["metadata"]["deletionTimestamp"]
            assert condition_of(low, "DisruptionTarget")["reason"] == "PreemptionByScheduler"
            assert client.find(PODS, "high", "default")["status"]["nominatedNodeName"] == "n1"
            assert client.count("delete pods *") == 1
            await client.delete(PODS, "low", "default", grace_seconds=0)
            await asyncio.sleep(10)
            assert place(client, "high") == "n1"
            assert any(reason == "Preempted" for reason, _ in events(client))

    virtual_time.run(scenario())


def test_room_that_victims_give_up_is_held():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(cpu="1"))
            await create(client, "victim")
            await asyncio.sleep(1)
            await create(client, "high", priority=100)
            await asyncio.sleep(0.2)
            await client.delete(PODS, "victim", "default", grace_seconds=0)  # while "high" waits out its backoff
            for name, priority in (("lower", 1), ("equal", 100)):
                await create(client, name, priority=priority)
            await asyncio.sleep(0.2)
            assert [place(client, name) for name in ("lower", "equal", "high")] == [None, None, None]
            await asyncio.sleep(20)
            assert [place(client, name) for name in ("lower", "equal", "high")] == [None, None, "n1"]

    virtual_time.run(scenario())


def test_a_higher_priority_takes_promised_room_and_a_promise_ends_with_its_pod():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(cpu="1"))
            await create(client, "victim")
            await asyncio.sleep(1)
            await create(client, "high", priority=100)
            await asyncio.sleep(0.2)
            await client.delete(PODS, "victim", "default", grace_seconds=0)
            await create(client, "higher", priority=200)
            await asyncio.sleep(0.2)
            assert place(client, "higher") == "n1"
            await asyncio.sleep(20)
            assert client.find(PODS, "high", "default")["status"]["nominatedNodeName"] == ""  # and it has no victims any more
            await client.delete(PODS, "higher", "default", grace_seconds=0)
            await asyncio.sleep(20)
            assert place(client, "high") == "n1"
            await create(client, "next", priority=300)
            await create(client, "patient", priority=1)
            await asyncio.sleep(2)
            await client.delete(PODS, "next", "default", grace_seconds=0)
            await client.delete(PODS, "high", "default", grace_seconds=0)
            await asyncio.sleep(20)
            assert place(client, "patient") == "n1"

    virtual_time.run(scenario())


def test_a_promise_is_read_from_the_status():
    async def scenario():
        async with running() as client:
            for name in ("promised", "unfit"):
                selector = {"late": "yes"} if name == "unfit" else {}
                await create(client, name, priority=100, nodeSelector=selector)
                await client.patch(PODS, name, {"status": {"nominatedNodeName": "n1"}}, "default", subresource="status")
            await client.create(NODES, node(cpu="2"))
            for name in ("lower", "low"):
                await create(client, name, priority=1)
            await asyncio.sleep(0.2)
            assert [place(client, name) for name in ("lower", "low")] == [None, None]
            await asyncio.sleep(20)
            assert place(client, "promised") == "n1"
            assert place(client, "unfit") is None
            assert [place(client, name) for name in ("lower", "low")] == ["n1", None]  # a promise that cannot be kept holds nothing
            assert client.find(PODS, "unfit", "default")["status"]["nominatedNodeName"] == ""

    virtual_time.run(scenario())


CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "standard"},
}


def with_claim(name="a"):
    return pod(name, volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}])


async def storage_class(client):
    await client.create(
        STORAGE_CLASSES, {"metadata": {"name": "standard"}, "provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer"}
    )


async def complete(client, volume):
    """What binder and provisioner do."""
    patch = {"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}}
    await client.patch(PERSISTENT_VOLUME_CLAIMS, "data", patch, "default")


def test_a_waiting_claim_is_told_the_node_and_the_pod_bound_after_it():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node())
            await storage_class(client)
            await client.create(PODS, with_claim(), "default")
            await asyncio.sleep(5)
            assert 'persistentvolumeclaim "data" not found' in verdict(client, "a")[2]
            await client.create(PERSISTENT_VOLUME_CLAIMS, CLAIM, "default")
            await asyncio.sleep(5)
            assert annotations_of(client.find(PERSISTENT_VOLUME_CLAIMS, "data", "default"))[SELECTED_NODE] == "n1"
            assert place(client, "a") is None
            await complete(client, "pv")
            await asyncio.sleep(0.1)
            assert place(client, "a") == "n1"

    virtual_time.run(scenario())


def test_a_free_volume_is_reserved():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node())
            await storage_class(client)
            spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard"}
            await client.create(PERSISTENT_VOLUMES, {"metadata": {"name": "v"}, "spec": spec, "status": {"phase": "Available"}})
            claim = await client.create(PERSISTENT_VOLUME_CLAIMS, CLAIM, "default")
            await client.create(PODS, with_claim(), "default")
            await asyncio.sleep(1)
            assert client.find(PERSISTENT_VOLUMES, "v")["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
            await complete(client, "v")
            await asyncio.sleep(1)
            assert place(client, "a") == "n1"

    virtual_time.run(scenario())


def test_volumes_that_never_come_free_the_room_again():
    async def scenario():
        async with running() as client:
            await client.create(NODES, node(cpu="1"))
            await storage_class(client)
            await client.create(PERSISTENT_VOLUME_CLAIMS, CLAIM, "default")
            await client.create(PODS, with_claim(), "default")
            await asyncio.sleep(601)
            assert any("were not bound within 600 s" in message for _, message in events(client))
            await client.delete(PODS, "a", "default", grace_seconds=0)
            await create(client, "b")
            await asyncio.sleep(700)
            assert place(client, "b") == "n1"

    virtual_time.run(scenario())
