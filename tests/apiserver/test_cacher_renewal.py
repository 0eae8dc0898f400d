"""Objects of a kind whose schema changes are read anew when they are asked for, and in the background a slice at a time."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace

from atoll.apiserver.machinery import cacher as cacher_module
from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.store import SqliteStore

CONFIG_MAPS = KindRegistry.builtin().get("", "v1", "configmaps")
assert CONFIG_MAPS is not None
COUNT = 200


class Defaulting:
    """A schema that gives every object a field, and counts."""

    def __init__(self, text):
        self.text = text
        self.read = 0

    def restored(self, obj):
        self.read += 1
        return obj if (obj.get("data") or {}).get(self.text) else {**obj, "data": {self.text: "yes"}}


def kind_with(schema):
    return dataclasses.replace(CONFIG_MAPS, schema=schema)


async def until(truth):
    for _ in range(10_000):
        if truth():
            return
        await asyncio.sleep(0.001)
    raise AssertionError


def test_a_new_schema_reads_objects_when_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(cacher_module, "RENEW_SLICE_S", 0.0)  # one at a time

    async def scenario():
        store = await SqliteStore.open(tmp_path / "db", compact_interval=None)
        caches = Caches(store)
        old = kind_with(SimpleNamespace(restored=lambda obj: obj))
        await caches.load([old])
        cacher = caches.of(old)
        for number in range(COUNT):
            name = f"m{number:03}"
            obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns"}}
            await store.write(f"{cacher.prefix}ns/{name}", cacher.encode(obj), expected=0, payload=obj)
        first, second = Defaulting("a"), Defaulting("b")
        for schema in (first, second):
            caches.replace(old, kind_with(schema))
            assert schema.read == 0
            held = cacher.get("ns/m150")
            assert list(held.obj["data"]) == [schema.text]
            assert b'"data":{"%s":"yes"}' % schema.text.encode() in held.body
            page, rest = await cacher.at(cacher.revision, "ns", "", 10)
            assert [list(item.obj["data"]) for item in page] == [[schema.text]] * 10
            assert (rest, await cacher.is_current(held)) == (COUNT - 10, True)
            assert schema.read < COUNT  # the rest comes by itself
        await store.write(f"{cacher.prefix}ns/m199", None, expected=cacher._items["ns/m199"].revision)
        [event] = await cacher.since(store.revision - 1)
        assert event.item.obj["data"] == event.previous.obj["data"] == {"b": "yes"}
        await until(lambda: not cacher._stale)
        assert {key for item in cacher.items() for key in item.obj["data"]} == {"b"}
        caches.replace(old, old)
        assert not any("data" in item.obj for item in cacher.items())  # it was never written
        await store.close()

    asyncio.run(scenario())
