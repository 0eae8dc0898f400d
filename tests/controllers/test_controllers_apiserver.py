"""All controllers and the scheduler against the real API server, in process and in real time; only the kubelet is played."""

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress

import orjson
import pytest

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.apiserver.config import StaticToken
from atoll.client.factory import InformerFactory
from atoll.client.http import HttpClient
from atoll.client.objects import annotations_of, copy_of, is_deleting, is_true, name_of, namespace_of
from atoll.client.resources import (
    CONFIG_MAPS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from atoll.controllers.base import Config
from atoll.controllers.registry import run_all
from atoll.errors import StatusError
from atoll.http import Server
from atoll.scheduler.scheduler import Scheduler
from atoll.units import timestamp_seconds

PATIENCE_S = 10.0


class Guard:
    """Passes calls on, and remembers what was handed out, so that a change to a shared object is found."""

    def __init__(self, client):
        self._client = client
        self._handed = {}

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def get(self, *args, **kwargs):
        return self._keep(await self._client.get(*args, **kwargs))

    async def list(self, *args, **kwargs):
        page = await self._client.list(*args, **kwargs)
        for obj in page["items"]:
            self._keep(obj)
        return page

    async def watch(self, *args, **kwargs):
        async for kind, obj in self._client.watch(*args, **kwargs):
            yield kind, self._keep(obj)

    def _keep(self, obj):
        self._handed.setdefault(id(obj), (obj, orjson.dumps(obj)))
        return obj

    def check(self):
        for obj, was in self._handed.values():
            assert orjson.dumps(obj) == was


class Kubelet:
    """Runs every pod of every node at once, and takes ended ones away."""

    def __init__(self, client):
        self._client = client

    async def run(self):
        async for kind, pod in self._client.watch(PODS, resource_version="0"):
            if kind in ("BOOKMARK", "DELETED") or not pod["spec"].get("nodeName"):
                continue
            with suppress(StatusError):
                if is_deleting(pod):
                    await self._client.delete(PODS, name_of(pod), namespace_of(pod), grace_seconds=0)
                elif pod["status"].get("phase") == "Pending":
                    await self._start(pod)

    async def _start(self, pod):
        now = timestamp_seconds()
        ip = f"10.244.0.{hash(name_of(pod)) % 250 + 2}"
        ends = pod["spec"]["restartPolicy"] == "Never"
        ready = "False" if ends else "True"
        made = [{"type": kind, "status": ready, "lastTransitionTime": now} for kind in ("Initialized", "Ready", "ContainersReady")]
        changed = copy_of(pod)
        others = [each for each in pod["status"].get("conditions") or () if each["type"] == "PodScheduled"]
        changed["status"] |= {
            "phase": "Succeeded" if ends else "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [*others, *made],
        }
        await self._client.update(PODS, changed, subresource="status")


async def until(condition):
    """Waits until the async condition is true; fails with what it answered last."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := await condition()):
        assert time.monotonic() < deadline, f"still {answer!r}"
        await asyncio.sleep(0.005)
    return answer


@asynccontextmanager
async def api_client(tmp_path, transport):
    tokens = {"secret": StaticToken("admin", ("system:masters",))}
    server = ApiServer(ApiServerConfig(tmp_path / "store.db", tokens=tokens))
    await server.start()
    try:
        if transport == "inprocess":
            yield Guard(InProcessClient(server))
        else:
            listener = Server(server.handler)
            await listener.start_unix(tmp_path / "api.sock")
            try:
                async with HttpClient(f"unix://{tmp_path}/api.sock", token="secret") as client:
                    yield Guard(client)
            finally:
                await listener.close()
    finally:
        await server.close()


@asynccontextmanager
async def control_plane(tmp_path, transport="inprocess"):
    async with api_client(tmp_path, transport) as client, asyncio.TaskGroup() as group:
        informers = InformerFactory(client)
        config = Config(root_ca="PEM", local_path_root=tmp_path / "volumes")
        parts = (informers.run(), run_all(client, config, informers=informers), Scheduler(client, informers).run(), Kubelet(client).run())
        tasks = [group.create_task(part) for part in parts]
        try:
            await client.create(NODES, node())
            yield client
            client.check()
        finally:
            for task in tasks:
                task.cancel()


def node(name="n1"):
    labels = {"kubernetes.io/hostname": name}
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"capacity": capacity, "allocatable": capacity}}


def deployment(replicas=3, image="hello-world", **spec):
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}], **spec}}
    selector = {"matchLabels": {"app": "web"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }


def rolled_out(client, replicas, revision, namespace="default"):
    """What `kubectl rollout status` asks."""

    async def condition():
        found = await client.get(DEPLOYMENTS, "web", namespace)
        status = found.get("status") or {}
        counts = {status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")}
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        right = annotations_of(found).get("deployment.kubernetes.io/revision") == revision
        return seen and counts == {replicas} and right and is_true(found, "Progressing") and found

    return condition


def with_plane(tmp_path, scenario, transport="inprocess"):
    async def main():
        async with asyncio.timeout(60), control_plane(tmp_path, transport) as client:
            await scenario(client)

    asyncio.run(main())


@pytest.mark.parametrize("transport", ["inprocess", "http"])
def test_a_deployment_lives_and_dies(tmp_path, transport):
    async def scenario(client):
        await client.create(DEPLOYMENTS, deployment(), "default")
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        }
        await client.create(SERVICES, service, "default")
        await until(rolled_out(client, 3, "1"))

        async def slice_is_full():
            slices = await client.list(ENDPOINT_SLICES, "default", label_selector="kubernetes.io/service-name=web")
            endpoints = [each for found in slices["items"] for each in found.get("endpoints") or ()]
            return len(endpoints) == 3 and all(each["conditions"]["ready"] for each in endpoints)

        await until(slice_is_full)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}
        await client.patch(DEPLOYMENTS, "web", patch, "default", kind="strategic")
        await until(rolled_out(client, 3, "2"))
        await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, "default")
        await until(rolled_out(client, 5, "2"))
        assert len((await client.list(REPLICA_SETS, "default"))["items"]) == 2
        await client.delete(DEPLOYMENTS, "web", "default")

        async def all_gone():
            left = [obj for resource in (REPLICA_SETS, PODS) for obj in (await client.list(resource, "default"))["items"]]
            return not left

        await until(all_gone)
        reasons = {event["reason"] for event in (await client.list(EVENTS, "default"))["items"]}
        assert {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"} <= reasons

    with_plane(tmp_path, scenario, transport)


@pytest.mark.parametrize("transport", ["inprocess", "http"])
def test_a_claim_gets_its_directory_and_the_pod_its_node(tmp_path, transport):
    async def scenario(client):
        meta = {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
        standard = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": meta, "provisioner": "atoll.dev/local-path"}
        await client.create(STORAGE_CLASSES, standard | {"volumeBindingMode": "WaitForFirstConsumer"})
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim, "default")
        volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
        await client.create(DEPLOYMENTS, deployment(1, volumes=volumes), "default")
        await until(rolled_out(client, 1, "1"))
        bound = await client.get(PERSISTENT_VOLUME_CLAIMS, "data", "default")
        assert bound["status"]["phase"] == "Bound"
        assert len(os.listdir(tmp_path / "volumes")) == 1
        await client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
        await asyncio.sleep(0.2)
        assert (await client.get(PERSISTENT_VOLUME_CLAIMS, "data", "default"))["metadata"]["deletionTimestamp"]
        await client.delete(DEPLOYMENTS, "web", "default")

        async def given_back():
            volumes = (await client.list(PERSISTENT_VOLUMES))["items"]
            return not volumes and not os.listdir(tmp_path / "volumes")

        await until(given_back)

    with_plane(tmp_path, scenario, transport)


def test_a_namespace_comes_furnished_and_goes_empty(tmp_path):
    async def scenario(client):
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})

        async def furnished():
            accounts = (await client.list(SERVICE_ACCOUNTS, "shop"))["items"]
            maps = (await client.list(CONFIG_MAPS, "shop"))["items"]
            return [name_of(each) for each in (*accounts, *maps)] == ["default", "kube-root-ca.crt"]

        await until(furnished)
        await client.create(DEPLOYMENTS, deployment(2), "shop")
        await until(rolled_out(client, 2, "1", "shop"))
        await client.delete(NAMESPACES, "shop")

        async def gone():
            return "shop" not in [name_of(each) for each in (await client.list(NAMESPACES))["items"]]

        await until(gone)
        assert (await client.list(PODS, "shop"))["items"] == []

    with_plane(tmp_path, scenario)


def test_a_settled_cluster_writes_nothing(tmp_path):
    async def scenario(client):
        await client.create(DEPLOYMENTS, deployment(2), "default")
        await until(rolled_out(client, 2, "1"))
        await asyncio.sleep(0.5)
        before = (await client.list(PODS))["metadata"]["resourceVersion"]
        await asyncio.sleep(1)
        assert (await client.list(PODS))["metadata"]["resourceVersion"] == before

    with_plane(tmp_path, scenario)


def test_the_other_workloads(tmp_path):
    async def scenario(client):
        selector = {"matchLabels": {"app": "x"}}
        template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "hello-world"}]}}
        once = {"spec": {**template["spec"], "restartPolicy": "Never"}}
        spec = {"selector": selector, "template": template}

        def named(resource, **body):
            return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "x"}, "spec": body}

        await client.create(DAEMON_SETS, named(DAEMON_SETS, **spec), "default")
        await client.create(STATEFUL_SETS, named(STATEFUL_SETS, **spec, serviceName="x", replicas=2), "default")
        await client.create(JOBS, named(JOBS, template=once, completions=3, parallelism=2, completionMode="Indexed"), "default")
        await client.create(
            CRON_JOBS, named(CRON_JOBS, schedule="* * * * *", suspend=True, jobTemplate={"spec": {"template": once}}), "default"
        )

        async def all_well():
            daemons = (await client.get(DAEMON_SETS, "x", "default"))["status"]
            members = (await client.get(STATEFUL_SETS, "x", "default"))["status"]
            job = await client.get(JOBS, "x", "default")
            return daemons["numberReady"] == 1 and members.get("readyReplicas") == 2 and is_true(job, "Complete")

        await until(all_well)
        assert (await client.get(JOBS, "x", "default"))["status"]["completedIndexes"] == "0-2"
        await client.patch(STATEFUL_SETS, "x", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}, "default")
        await client.patch(DAEMON_SETS, "x", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}, "default")

        async def updated():
            daemons = (await client.get(DAEMON_SETS, "x", "default"))["status"]
            members = (await client.get(STATEFUL_SETS, "x", "default"))["status"]
            return daemons.get("updatedNumberScheduled") == 1 and members["currentRevision"] == members["updateRevision"]

        await until(updated)
        for resource in (DAEMON_SETS, STATEFUL_SETS, JOBS, CRON_JOBS):
            await client.delete(resource, "x", "default", propagation="Foreground")

        async def all_gone():
            left = [
                obj for resource in (DAEMON_SETS, STATEFUL_SETS, JOBS, PODS) for obj in (await client.list(resource, "default"))["items"]
            ]
            return not left

        await until(all_gone)

    with_plane(tmp_path, scenario)
