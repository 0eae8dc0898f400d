"""Controllers over the fake API server on virtual time, with a kubelet that obeys at once."""

import asyncio
from contextlib import asynccontextmanager, suppress

import virtual_time
from atoll.client.factory import InformerFactory
from atoll.client.objects import copy_of, is_deleting, name_of, namespace_of
from atoll.client.resources import NAMESPACES, PODS
from atoll.controllers.base import Config, Context
from atoll.units import timestamp_seconds
from fake_cluster import FakeClient


class Cluster:
    """What a test sees: the client, and helpers that act as kubelet and user."""

    def __init__(self, client, context):
        self.client = client
        self.context = context
        self.kubelet = None

    async def settle(self, seconds=1.0):
        """Lets everything happen that happens without further outside action; virtual seconds pass."""
        await asyncio.sleep(seconds)

    def pods(self, namespace="default"):
        return [pod for pod in self.client.all(PODS, namespace) if not is_deleting(pod)]

    async def create(self, resource, obj, namespace="default"):
        return await self.client.create(resource, obj, namespace if resource.namespaced else None)

    async def set_pod(self, pod, phase="Running", *, ready=True, ip=None, restarts=0):
        """Writes a pod's status as the kubelet would."""
        pod = copy_of(await self.client.get(PODS, name_of(pod), namespace_of(pod)))
        now = timestamp_seconds(virtual_time.clock())
        kinds = ("Ready", "ContainersReady")
        others = [entry for entry in pod["status"].get("conditions", ()) if entry["type"] not in kinds]
        made = [{"type": kind, "status": str(bool(ready)), "lastTransitionTime": now} for kind in kinds]
        pod["status"] |= {"phase": phase, "conditions": [*others, *made]}
        if ip:
            pod["status"] |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        if restarts:
            pod["status"]["containerStatuses"] = [{"name": "c", "restartCount": restarts}]
        return await self.client.update(PODS, pod, subresource="status")

    async def obey(self):
        """A kubelet: pods run and become ready; pods told to go are gone."""
        async for kind, pod in self.client.watch(PODS, resource_version="0"):
            if kind == "DELETED":
                continue
            with suppress(Exception):
                if is_deleting(pod):
                    await self.client.delete(PODS, name_of(pod), namespace_of(pod), grace_seconds=0)
                elif pod["status"]["phase"] == "Pending":
                    await self.set_pod(pod)


@asynccontextmanager
async def cluster(*controllers, kubelet=False, config=None):
    """Runs the given controller classes; with `kubelet`, pods become ready by themselves."""
    client = FakeClient(virtual_time.clock)
    context = Context(client, InformerFactory(client), config or Config(), virtual_time.clock, lambda: 0.0)
    await client.create(NAMESPACES, {"metadata": {"name": "default"}})
    running = [controller(context) for controller in controllers]
    here = Cluster(client, context)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(context.informers.run())]
        tasks += [group.create_task(controller.run()) for controller in running]
        if kubelet:
            here.kubelet = group.create_task(here.obey())
            tasks.append(here.kubelet)
        try:
            await here.settle()
            yield here
            client.check_unchanged()
        finally:
            for task in tasks:
                task.cancel()


def container(name="c", image="hello-world", **more):
    return {"name": name, "image": image, **more}


def template(labels=None, **spec):
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {"containers": [container()], **spec}}
