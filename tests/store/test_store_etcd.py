"""What is etcd's own: shared compaction, foreign keys, history lost while away, locations that name none."""

from __future__ import annotations

import asyncio

import pytest

from atoll.errors import InvalidInput, Unavailable
from atoll.store.etcd import COMPACTOR_KEY, EtcdStore
from atoll.store.gateway import Gateway, HistoryGone


def test_of_several_servers_one_compacts(etcd_server):
    async def scenario():
        stores = [await EtcdStore.open(etcd_server.location, compact_interval=0.1) for _ in range(2)]
        revision = 0
        for number in range(20):
            revision = await stores[number % 2].write("/registry/c/a", b"%d" % number, expected=revision)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(10):
            while not any(store.compacted for store in stores):  # noqa: ASYNC110 (a store tells nobody)
                await asyncio.sleep(0.02)
        for store in stores:
            assert store.problem == ""
            assert [record.value for record in await store.scan("/registry/c/")] == [b"19"]
            await store.close()

    asyncio.run(scenario())
    assert etcd_server.ctl("get", "--print-value-only", COMPACTOR_KEY).strip().isdecimal()


def test_what_others_keep_there_is_passed_over(etcd_server):
    async def scenario():
        store = await EtcdStore.open(etcd_server.location, compact_interval=None)
        seen = []
        store.subscribe(seen.extend)
        begin = store.revision
        await asyncio.to_thread(etcd_server.ctl, "put", "elsewhere", "x")
        await store.settle()
        assert store.revision == begin + 1
        assert seen == []
        assert await store.write("/registry/f/a", b"1", expected=0) == begin + 2
        assert (await store.history("/registry/f/", begin))[0][0].key == "/registry/f/a"
        await store.close()

    asyncio.run(scenario())


def test_a_server_that_missed_history_says_so_and_refuses(etcd_server, monkeypatch):
    async def scenario():
        store = await EtcdStore.open(etcd_server.location, compact_interval=None)

        async def gone(_gateway, after, *, with_before=False):
            raise HistoryGone(after + 7)
            yield

        monkeypatch.setattr(Gateway, "watch", gone)
        await store._gateway.close()  # cuts the stream
        async with asyncio.timeout(5):
            while "start it again" not in store.problem:  # noqa: ASYNC110 (a store tells nobody)
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="has compacted its history"):
            await store.write("/registry/g/a", b"1", expected=0)
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "location", ["nonsense", "etcd://", "etcd:///x", "etcd://user@host:1", "http://127.0.0.1:2379", "etcds://", "etcdss://h:1"]
)
def test_locations_that_name_no_etcd(location):
    with pytest.raises(InvalidInput, match="names no etcd"):
        asyncio.run(EtcdStore.open(location))


def test_an_etcd_that_does_not_answer():
    with pytest.raises(Unavailable, match="cannot connect"):
        asyncio.run(EtcdStore.open("etcd://127.0.0.1:1"))
