"""Two API servers on one etcd: each sees at once what the other has written, by read, list and watch, and etcdctl sees it too."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.client.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, SERVICE_ACCOUNTS, Resource
from atoll.errors import StatusError, Unavailable
from etcd_harness import ETCD, etcd

pytestmark = pytest.mark.skipif(ETCD is None, reason="needs Debian's etcd-server and etcd-client")
THINGS = Resource("example.com", "v1", "things", True, "Thing")
DEFINITION = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
    },
}


def configmap(name="a", **data):
    return {"metadata": {"name": name}, "data": data}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


def run(server, scenario):
    """Run `scenario(one, two)` with the clients of two API servers."""

    async def whole():
        servers = []
        try:
            for _ in range(2):
                servers.append(ApiServer(ApiServerConfig(store=server.location)))
                await servers[-1].start()
            await scenario(*(InProcessClient(each) for each in servers))
        finally:
            for each in servers:
                await each.close()

    asyncio.run(whole())


def test_what_one_writes_the_other_reads_at_once(server):
    async def scenario(one, two):
        for number in range(20):
            made = await one.create(CONFIG_MAPS, configmap(f"c{number}", n="0"), "default")
            assert await two.get(CONFIG_MAPS, f"c{number}", "default") == made
            patched = await two.patch(CONFIG_MAPS, f"c{number}", {"data": {"n": "1"}}, "default")
            assert int(patched["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
            assert patched in (await one.list(CONFIG_MAPS, "default"))["items"]
        await one.delete(CONFIG_MAPS, "c0", "default")
        with pytest.raises(StatusError) as refused:
            await two.get(CONFIG_MAPS, "c0", "default")
        assert refused.value.code == 404

    run(server, scenario)
    stored = server.ctl("get", "--print-value-only", "/registry/core/configmaps/default/c1")
    assert orjson.loads(stored)["data"] == {"n": "1"}


def test_watches_tell_what_either_has_written_in_one_order(server):
    async def scenario(one, two):
        since = (await one.list(CONFIG_MAPS))["metadata"]["resourceVersion"]

        async def watched(client):
            seen = []
            async for kind, obj in client.watch(CONFIG_MAPS, "kube-public", resource_version=since):
                seen.append((kind, obj["metadata"]["name"], obj["metadata"]["resourceVersion"]))
                if len(seen) == 60:
                    break
            return seen

        watches = [asyncio.create_task(watched(client)) for client in (one, two)]
        made = [(client, configmap(f"{name}-{number}")) for number in range(30) for name, client in (("1", one), ("2", two))]
        await asyncio.gather(*(client.create(CONFIG_MAPS, obj, "kube-public") for client, obj in made))
        first, second = await asyncio.wait_for(asyncio.gather(*watches), 20)
        assert first == second
        assert [int(revision) for *_, revision in first] == sorted({int(revision) for *_, revision in first})

    run(server, scenario)


def test_no_update_is_lost_between_servers(server):
    async def scenario(one, two):
        await one.create(CONFIG_MAPS, configmap("counter"), "default")

        async def count(client, name):
            for number in range(10):
                await client.patch(CONFIG_MAPS, "counter", {"data": {f"{name}{number}": "x"}}, "default")

        await asyncio.gather(count(one, "a"), count(two, "b"), count(one, "c"), count(two, "d"))
        assert len((await two.get(CONFIG_MAPS, "counter", "default"))["data"]) == 40
        for number in range(10):
            stale = await one.get(CONFIG_MAPS, "counter", "default")
            fresh = await two.patch(CONFIG_MAPS, "counter", {"data": {"more": str(number)}}, "default")
            with pytest.raises(StatusError) as refused:
                await one.update(CONFIG_MAPS, stale)
            assert refused.value.code == 409
            fresh = await two.patch(CONFIG_MAPS, "counter", {"data": {"again": str(number)}}, "default")
            await one.update(CONFIG_MAPS, {**fresh, "data": {**fresh["data"], "one": str(number)}})

    run(server, scenario)


def test_custom_resources_are_served_by_both(server):
    async def scenario(one, two):
        await one.create(CUSTOM_RESOURCE_DEFINITIONS, DEFINITION)
        async with asyncio.timeout(10):
            while True:
                try:
                    await two.list(THINGS)
                    await one.create(THINGS, {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}, "default")
                    break
                except StatusError:
                    await asyncio.sleep(0.01)
        assert (await two.get(THINGS, "t", "default"))["metadata"]["name"] == "t"

    run(server, scenario)


def test_etcd_may_come_and_go(server):
    async def scenario(one, two):
        await one.create(NAMESPACES, {"metadata": {"name": "n"}})
        server.stop()
        with pytest.raises(Unavailable):
            await one.create(SERVICE_ACCOUNTS, {"metadata": {"name": "x"}}, "n")
        assert (await one.list(NAMESPACES, resource_version="0"))["items"]  # what is in memory may be asked for
        with pytest.raises(Unavailable):
            await one.list(NAMESPACES)
        store = one._server.api.core.store
        assert "Connection refused" in store.problem or "closed the connection" in store.problem
        await asyncio.to_thread(server.start)
        await one.create(SERVICE_ACCOUNTS, {"metadata": {"name": "y"}}, "n")
        assert store.problem == ""
        assert (await two.get(SERVICE_ACCOUNTS, "y", "n"))["metadata"]["name"] == "y"

    run(server, scenario)
