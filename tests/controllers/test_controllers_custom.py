"""Custom resources as owners, dependents and content of namespaces: the controllers follow definitions as they come and go."""

import asyncio
from contextlib import asynccontextmanager, suppress

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.client.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, Resource
from atoll.cluster.resources import collected_resources
from atoll.controllers.base import Config
from atoll.controllers.garbage.controller import GarbageCollector
from atoll.controllers.namespace import NamespaceController
from atoll.controllers.registry import run_all
from atoll.errors import StatusError

WIDGETS = Resource("example.com", "v1", "widgets", True, "Widget")
PATIENCE_S = 10.0


def definition(*versions):
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    listed = [{"name": name, "served": True, "storage": name == versions[-1], "schema": schema} for name in versions]
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": listed}
    return {"metadata": {"name": "widgets.example.com"}, "spec": spec}


@asynccontextmanager
async def control_plane(tmp_path):
    server = ApiServer(ApiServerConfig(store=tmp_path / "store.db"))
    await server.start()
    client = InProcessClient(server)
    config = Config(resources=lambda: collected_resources(server.api.core.registry))
    running = asyncio.create_task(run_all(client, config, controllers=(GarbageCollector, NamespaceController)))
    try:
        yield client
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await server.close()


async def gone(client, resource, name, namespace=None):
    async with asyncio.timeout(PATIENCE_S):
        while await exists(client, resource, name, namespace):  # noqa: ASYNC110 (the API is what is asked)
            await asyncio.sleep(0.01)


async def exists(client, resource, name, namespace):
    try:
        await client.get(resource, name, namespace)
    except StatusError as error:
        if error.code != 404:
            raise
        return False
    return True


def widget(name, owner=None):
    metadata = {"name": name}
    if owner is not None:
        named = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        metadata["ownerReferences"] = [{"apiVersion": owner["apiVersion"], "kind": owner["kind"], **named}]
    return {"metadata": metadata}


def test_dependents_of_custom_resources_go_with_them(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as client:
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition("v1"))
            owner = await client.create(WIDGETS, widget("owner"), "default")
            await client.create(WIDGETS, widget("child", owner), "default")
            await client.create(CONFIG_MAPS, widget("grandchild", await client.get(WIDGETS, "child", "default")), "default")
            await client.create(CONFIG_MAPS, widget("stays"), "default")
            await client.delete(WIDGETS, "owner", "default")
            await gone(client, WIDGETS, "child", "default")
            await gone(client, CONFIG_MAPS, "grandchild", "default")
            again = await client.create(WIDGETS, widget("again"), "default")
            await client.create(CONFIG_MAPS, widget("orphan", again), "default")
            await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com")
            await gone(client, CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com")
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition("v1beta1", "v1"))
            owner = await client.create(WIDGETS, widget("owner"), "default")
            await client.create(CONFIG_MAPS, widget("child", owner), "default")
            await client.delete(WIDGETS, "owner", "default", propagation="Foreground")
            await gone(client, CONFIG_MAPS, "child", "default")
            await gone(client, WIDGETS, "owner", "default")
            await client.get(CONFIG_MAPS, "stays", "default")

    asyncio.run(scenario())


def test_namespaces_take_their_custom_resources_along(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as client:
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition("v1"))
            await client.create(NAMESPACES, {"metadata": {"name": "n"}})
            held = widget("held")
            held["metadata"]["finalizers"] = ["example.com/hold"]
            await client.create(WIDGETS, held, "n")
            await client.create(WIDGETS, widget("free"), "n")
            await client.create(WIDGETS, widget("elsewhere"), "default")
            await client.delete(NAMESPACES, "n")
            await gone(client, WIDGETS, "free", "n")
            namespace = await client.get(NAMESPACES, "n")
            assert namespace["status"]["phase"] == "Terminating"
            await client.patch(WIDGETS, "held", {"metadata": {"finalizers": None}}, "n")
            await gone(client, NAMESPACES, "n")
            await client.get(WIDGETS, "elsewhere", "default")

    asyncio.run(scenario())
