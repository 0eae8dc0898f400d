"""The watch against a model: ordered, unique, complete, resumable, right under selection, across restart and compaction."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.apiserver.machinery import cacher as cacher_module
from atoll.apiserver.machinery import waking
from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.selectors import EVERYTHING, Selector, parse_labels
from atoll.apiserver.machinery.watcher import WatchPlan, watch
from atoll.errors import StatusError
from atoll.store import SqliteStore

KIND = KindRegistry.builtin().get("", "v1", "configmaps")
assert KIND is not None
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "restart", "compact"]), st.sampled_from("abc"), st.sampled_from(["red", "blue"])),
    max_size=25,
)


class World:
    """A store with one cacher, and what has happened in it."""

    def __init__(self, path):
        self.path = path
        self.log: list[tuple[int, str, str, str | None]] = []  # revision, type, key, colour

    async def open(self):
        self.store = await SqliteStore.open(self.path, compact_interval=None)
        self.caches = Caches(self.store)
        await self.caches.load([KIND])
        self.cacher = self.caches.of(KIND)

    async def step(self, action, name, colour):
        key = f"ns/{name}"
        item = self.cacher.get(key)
        if action == "put":
            obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns", "labels": {"c": colour}}}
            body = self.cacher.encode(obj)
            revision = await self.store.write(self.cacher.prefix + key, body, expected=item.revision if item else 0, payload=obj)
            self.log.append((revision, "MODIFIED" if item else "ADDED", key, colour))
        elif action == "delete" and item:
            revision = await self.store.write(self.cacher.prefix + key, None, expected=item.revision)
            self.log.append((revision, "DELETED", key, item.obj["metadata"]["labels"]["c"]))
        elif action == "restart":
            await self.store.close()
            await self.open()
        elif action == "compact":
            await self.store.compact(self.store.revision // 2)

    async def watched(self, since, selector=EVERYTHING):
        plan = WatchPlan("ns", selector, since, False, False, 0)
        return [delivery async for batch in watch(self.cacher, plan) for delivery in batch]


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 3))
def test_a_watch_from_any_revision_tells_what_happened_since(tmp_path_factory, steps, ring):
    async def scenario():
        world = World(tmp_path_factory.mktemp("watch") / "s.db")
        await world.open()
        for step in steps:
            await world.step(*step)
        for since in range(world.store.revision + 1):
            if since < world.store.compacted and since < world.cacher._floor:
                with pytest.raises(StatusError) as refused:
                    await world.watched(since)
                assert refused.value.code == 410
                continue
            seen = [(d.revision, d.type, d.item.key, d.item.obj["metadata"]["labels"]["c"]) for d in await world.watched(since)]
            assert seen == [entry for entry in world.log if entry[0] > since]
        await world.store.close()

    with pytest.MonkeyPatch.context() as patch:  # small rings, so that history is needed
        patch.setattr(cacher_module, "RING_MAX", ring + 1)
        patch.setattr(cacher_module, "RING_MIN", ring)
        asyncio.run(scenario())


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_a_selective_watch_keeps_exactly_the_selected_set(tmp_path_factory, steps):
    async def scenario():
        world = World(tmp_path_factory.mktemp("watch") / "s.db")
        await world.open()
        for step in steps:
            await world.step(*step)
        if world.store.compacted:
            await world.store.close()
            return
        held = set()
        for delivery in await world.watched(0, Selector(parse_labels("c=red"))):
            assert delivery.item.obj["metadata"]["resourceVersion"] == str(delivery.revision)
            assert (delivery.type == "ADDED") == (delivery.item.key not in held)
            held = held - {delivery.item.key} if delivery.type == "DELETED" else held | {delivery.item.key}
        assert held == {item.key for item in world.cacher.items() if item.obj["metadata"]["labels"]["c"] == "red"}
        await world.store.close()

    asyncio.run(scenario())


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_lists_at_old_revisions_agree_with_what_was(tmp_path_factory, steps):
    async def scenario():
        world = World(tmp_path_factory.mktemp("list") / "s.db")
        await world.open()
        past = {0: {}}
        for step in steps:
            await world.step(*step)
            past[world.store.revision] = {item.key: item.body for item in world.cacher.items()}
        for revision, state in past.items():
            if revision >= world.store.compacted:
                assert {item.key: item.body for item in (await world.cacher.at(revision, None, ""))[0]} == state
        await world.store.close()

    asyncio.run(scenario())


def test_a_watch_wakes_for_what_is_written_while_it_waits(tmp_path):
    async def scenario():
        world = World(tmp_path / "s.db")
        await world.open()
        seen: list[str] = []

        async def watching():
            async for batch in watch(world.cacher, WatchPlan(None, EVERYTHING, None, True, True, 60)):
                for delivery in batch:
                    seen.append(delivery.type)
                    if delivery.type == "DELETED":
                        return

        task = asyncio.create_task(watching())
        await asyncio.sleep(0)
        for action in ("put", "put", "delete"):
            await world.step(action, "a", "red")
        await asyncio.wait_for(task, 5)
        assert seen == ["BOOKMARK", "ADDED", "MODIFIED", "DELETED"]
        await world.store.close()

    asyncio.run(scenario())


def test_a_burst_wakes_many_watchers_once(tmp_path, monkeypatch):
    """A few are woken at each change. Many are after a pause; in a burst they wait for their turn, and then have all."""
    monkeypatch.setattr(waking, "TELLING_S", 60.0)  # no turn comes by itself
    monkeypatch.setattr(waking, "BURST_WAIT_MAX_S", 60.0)

    async def scenario():
        world = World(tmp_path / "burst.db")
        await world.open()
        watchers = []

        def wait(count):
            watchers[:] = [asyncio.ensure_future(world.cacher.changed(60.0)) for _ in range(count)]

        async def told_of_a_change():
            await asyncio.sleep(0)
            await world.step("put", "a", "red")
            await asyncio.sleep(0)
            return sum(task.done() for task in watchers)

        few, many = waking.UNPACED, waking.UNPACED + 1
        for _ in range(2):
            wait(few)
            assert await told_of_a_change() == few
        wait(many)
        assert await told_of_a_change() == 0  # so soon after the last
        assert await told_of_a_change() == 0
        assert len(await world.cacher.since(world.log[-3][0])) == 2
        monkeypatch.setattr(waking, "BURST_WAIT_MAX_S", 0.0)
        world.cacher.end_watches()  # a kind that goes wakes them at once, and takes the turn back
        await asyncio.sleep(0)
        assert all(task.done() for task in watchers)
        wait(many)
        assert await told_of_a_change() == many
        monkeypatch.setattr(waking, "BURST_WAIT_MAX_S", 0.01)
        wait(many)
        await told_of_a_change()
        async with asyncio.timeout(10):  # the turn comes
            await asyncio.gather(*watchers)
        await world.store.close()

    asyncio.run(scenario())
