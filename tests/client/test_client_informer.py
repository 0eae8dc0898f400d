import asyncio
from contextlib import asynccontextmanager, suppress

import virtual_time
from atoll.client.factory import BY_LABEL, BY_NAMESPACE, BY_NODE, BY_OWNER, InformerFactory
from atoll.client.informer import Informer
from atoll.client.resources import CONFIG_MAPS, PODS
from atoll.errors import StatusError, Unavailable
from fake_cluster import FakeClient


def config_map(name, **data):
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


@asynccontextmanager
async def running(informer):
    task = asyncio.create_task(informer.run())
    try:
        await informer.wait_synced()
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def recorded(informer):
    events = []

    def handler(old, new):
        events.append(("add" if old is None else "delete" if new is None else "update", (new or old)["metadata"]["name"]))

    informer.add_handler(handler)
    return events


def test_lists_then_follows():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        await client.create(CONFIG_MAPS, config_map("a"))
        informer = Informer(client, CONFIG_MAPS)
        events = recorded(informer)
        async with running(informer):
            await client.create(CONFIG_MAPS, config_map("b"))
            await client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, "default")
            await client.delete(CONFIG_MAPS, "b", "default")
            await asyncio.sleep(1)
            assert events == [("add", "a"), ("add", "b"), ("update", "a"), ("delete", "b")]
            assert informer.get("default/a")["data"] == {"x": "1"}
            assert informer.get("default/b") is None
            late = recorded(informer)
            assert late == [("add", "a")]

    virtual_time.run(scenario())


def test_a_broken_watch_resumes_without_listing_again():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        informer = Informer(client, CONFIG_MAPS)
        lists = []
        original = client.list
        client.list = lambda *args, **kwargs: lists.append(1) or original(*args, **kwargs)
        events = recorded(informer)
        async with running(informer):
            await client.create(CONFIG_MAPS, config_map("a"))
            await asyncio.sleep(1)
            client.fail("watch *", Unavailable("connection refused"), times=5)
            client.disconnect()
            await asyncio.sleep(0)
            await client.create(CONFIG_MAPS, config_map("b"))
            await asyncio.sleep(60)
            assert events == [("add", "a"), ("add", "b")]
            assert len(lists) == 1

    virtual_time.run(scenario())


def test_410_lists_again_and_tells_the_difference():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        for name in ("gone", "kept", "changed", "renewed"):
            await client.create(CONFIG_MAPS, config_map(name))
        informer = Informer(client, CONFIG_MAPS)
        async with running(informer):
            events = recorded(informer)
            events.clear()
            client.fail("watch *", Unavailable("connection refused"), times=1)
            client.disconnect()
            await asyncio.sleep(0.01)
            await client.delete(CONFIG_MAPS, "gone", "default")
            await client.patch(CONFIG_MAPS, "changed", {"data": {"x": "1"}}, "default")
            await client.delete(CONFIG_MAPS, "renewed", "default")
            await client.create(CONFIG_MAPS, config_map("renewed"))
            await client.create(CONFIG_MAPS, config_map("new"))
            client.compact()
            await asyncio.sleep(60)
            assert sorted(events) == [("add", "new"), ("add", "renewed"), ("delete", "gone"), ("delete", "renewed"), ("update", "changed")]

    virtual_time.run(scenario())


def test_endless_410_does_not_spin():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        informer = Informer(client, CONFIG_MAPS, jitter=lambda: 0.0)
        client.fail("watch *", StatusError(410, "Expired", "too old"), times=10_000)
        async with running(informer):
            await asyncio.sleep(600)
        assert 10_000 - client.failures[0][2] < 40

    virtual_time.run(scenario())


def test_backs_off_while_the_server_is_away():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        client.fail("list *", Unavailable("connection refused"), times=8)
        informer = Informer(client, CONFIG_MAPS, jitter=lambda: 0.0)
        start = asyncio.get_running_loop().time()
        async with running(informer):
            waited = asyncio.get_running_loop().time() - start
            assert round(waited, 1) == round(0.2 * (1 + 2 + 4 + 8 + 16 + 32 + 64) + 25.6, 1)

    virtual_time.run(scenario())


def test_pages_through_long_lists():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        for number in range(1201):
            await client.create(CONFIG_MAPS, config_map(f"c{number}"))
        informer = Informer(client, CONFIG_MAPS)
        async with running(informer):
            assert len(informer) == 1201

    virtual_time.run(scenario())


def test_stop_ends_run():
    async def scenario():
        informer = Informer(FakeClient(virtual_time.clock), CONFIG_MAPS)
        task = asyncio.create_task(informer.run())
        await informer.wait_synced()
        informer.stop()
        await asyncio.wait_for(task, 1)

    virtual_time.run(scenario())


def test_selector_narrows_and_leaving_it_is_a_delete():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        await client.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default", "labels": {"app": "web"}}})
        await client.create(CONFIG_MAPS, config_map("b"))
        informer = Informer(client, CONFIG_MAPS, "default", label_selector="app=web")
        events = recorded(informer)
        async with running(informer):
            await client.patch(CONFIG_MAPS, "a", {"metadata": {"labels": None}}, "default")
            await asyncio.sleep(1)
            assert events == [("add", "a"), ("delete", "a")]

    virtual_time.run(scenario())


def test_a_failing_handler_does_not_stop_the_others():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        informer = Informer(client, CONFIG_MAPS)
        informer.add_handler(lambda old, new: 1 / 0)
        events = recorded(informer)
        async with running(informer):
            await client.create(CONFIG_MAPS, config_map("a"))
            await asyncio.sleep(1)
            assert events == [("add", "a")]

    virtual_time.run(scenario())


def pod(name, node=None, owner="u1", **labels):
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": labels,
            "ownerReferences": [{"uid": owner, "name": "o", "kind": "ReplicaSet"}],
        },
        "spec": {"nodeName": node} if node else {},
    }


def test_factory_shares_and_indexes():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        factory = InformerFactory(client)
        pods = factory.informer(PODS, BY_NODE, BY_OWNER)
        task = asyncio.create_task(factory.run())
        try:
            await factory.wait_synced()
            await client.create(PODS, pod("a", "n1", app="web"))
            await client.create(PODS, pod("b", app="web"))
            await asyncio.sleep(1)
            assert factory.informer(PODS, BY_LABEL, BY_NAMESPACE) is pods

            def names(index, value):
                return [obj["metadata"]["name"] for obj in pods.by_index(index, value)]

            assert names(BY_NODE, "n1") == ["a"]
            assert names(BY_OWNER, "u1") == ["a", "b"]
            assert names(BY_LABEL, "default/app=web") == ["a", "b"]
            assert names(BY_NAMESPACE, "default") == ["a", "b"]
            await client.patch(PODS, "b", {"spec": {"nodeName": "n1"}, "metadata": {"labels": {"app": "db"}}}, "default")
            await client.delete(PODS, "a", "default", grace_seconds=0)
            late = factory.informer(CONFIG_MAPS)
            await asyncio.wait_for(late.wait_synced(), 1)
            await asyncio.sleep(1)
            assert names(BY_NODE, "n1") == ["b"]
            assert names(BY_LABEL, "default/app=web") == []
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    virtual_time.run(scenario())
