"""Watches against a model, on both stores: the nine properties of a watch, over any mix of writes, restarts, compactions and lost clients.

ordered, unique, reliable, atomic: a client is told each change of its selection once, whole, in the order of revisions, and misses none;
resumable, bookmarkable: it goes on from any revision it was told, a bookmark's too;
filter-correct, previous-value, create-or-not: what enters or leaves its selection comes as ADDED or DELETED, the latter with the state it
had, and what was new is told from what was changed.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from atoll.apiserver.machinery import cacher as cacher_module
from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.selectors import EVERYTHING, Selector, parse_labels
from atoll.apiserver.machinery.watcher import WatchPlan, watch
from atoll.errors import StatusError
from atoll.store import CompareFailed, open_store
from etcd_harness import ETCD, etcd

KIND = KindRegistry.builtin().get("", "v1", "configmaps")
assert KIND is not None
NAMES = st.sampled_from("abc")
COLOURS = st.sampled_from(["red", "blue"])
SELECTORS = {"all": EVERYTHING, "red": Selector(parse_labels("c=red"))}
NAMESPACES = itertools.count(1)


@dataclass
class Client:
    """One who watches, as far as it has come: its selection, what it was told, what it holds."""

    selection: str
    revision: int
    server: int = 0
    told: list[tuple[int, str, str]] = field(default_factory=list)


class Watches(RuleBasedStateMachine):
    location: object
    servers = 1

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.namespace = f"n{next(NAMESPACES)}"
        self.log = []  # (revision, key, colour before, colour after, text before, text after)
        self.clients = []
        self.horizon = 0
        self.now = {}
        self.stores, self.caches = [], []
        self.directory = tempfile.TemporaryDirectory()
        self.runner.run(self.open())
        self.first = self.stores[0].revision

    async def open(self):
        for _ in range(self.servers):
            store = await open_store(self.location or Path(self.directory.name) / "s.db", compact_interval=None)
            caches = Caches(store)
            await caches.load([KIND])
            self.stores.append(store)
            self.caches.append(caches)

    async def close(self):
        for store in self.stores:
            await store.close()
        self.stores, self.caches = [], []

    async def write(self, name, colour, server):
        key = f"{self.namespace}/{name}"
        store, cacher = self.stores[server], self.caches[server].of(KIND)
        held = self.now.get(key)
        if colour is None and held is None:
            return
        value = payload = None
        text = f"{name}{colour}{len(self.log)}"
        if colour is not None:
            metadata = {"name": name, "namespace": self.namespace, "labels": {"c": colour}}
            payload = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"t": text}}
            value = cacher.encode(payload)
        revision = await store.write(KIND.prefix + key, value, expected=held[0] if held else 0, payload=payload)
        before = held or (0, None, None)
        self.log.append((revision, key, before[1], colour, before[2], text))
        if colour is None:
            del self.now[key]
        else:
            self.now[key] = (revision, colour, text)

    @rule(name=NAMES, colour=st.one_of(st.none(), COLOURS, COLOURS), server=st.integers(0, 1))
    def one_write(self, name, colour, server):
        self.runner.run(self.write(name, colour, server % self.servers))

    @rule(colours=st.tuples(COLOURS, COLOURS, COLOURS))
    def writes_at_once(self, colours):
        async def together():
            writers = enumerate(zip("abc", colours, strict=True))
            await asyncio.gather(*(self.write(name, colour, i % self.servers) for i, (name, colour) in writers))

        self.runner.run(together())
        self.log.sort()

    @rule(name=NAMES)
    def write_that_loses(self, name):
        key = f"{self.namespace}/{name}"
        wrong = self.now[key][0] - 1 if key in self.now else 10**9
        with pytest.raises(CompareFailed):
            self.runner.run(self.stores[0].write(KIND.prefix + key, b"{}", expected=wrong))

    @rule()
    def restart(self):
        async def again():
            await self.close()
            await self.open()

        self.runner.run(again())

    @rule(part=st.floats(0.1, 1))
    def compact(self, part):
        revision = self.first + int((self.stores[0].revision - self.first) * part)
        self.runner.run(self.stores[0].compact(revision))
        self.horizon = max(self.horizon, revision)

    @rule(selection=st.sampled_from(sorted(SELECTORS)), part=st.floats(0, 1), server=st.integers(0, 1))
    def client_comes(self, selection, part, server):
        revision = self.first + int((self.stores[0].revision - self.first) * part)
        self.clients.append(Client(selection, revision, server % self.servers))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 9))
    def client_watches(self, which):
        client = self.clients[which % len(self.clients)]
        self.runner.run(self.follow(client))

    async def follow(self, client):
        """Be told all that there is to tell, and hold it against the model."""
        await self.stores[client.server].settle()
        since = client.revision
        expected = [told for entry in self.log if entry[0] > since and (told := self.seen(entry, client.selection))]
        told = []
        try:
            plan = WatchPlan(self.namespace, SELECTORS[client.selection], since, True, False, 0)
            async for batch in watch(self.caches[client.server].of(KIND), plan):
                for delivery in batch:
                    assert delivery.revision >= client.revision
                    client.revision = delivery.revision
                    if delivery.item is None:  # a bookmark: all up to it has been told
                        assert [entry[0] for entry in expected if entry[0] <= delivery.revision] == [entry[0] for entry in told]
                        continue
                    obj = delivery.item.obj
                    assert obj["metadata"]["resourceVersion"] == str(delivery.revision)
                    told.append((delivery.revision, delivery.type, delivery.item.key, obj["metadata"]["labels"]["c"], obj["data"]["t"]))
        except StatusError as refused:
            if refused.code != 410 or since >= self.horizon:
                raise
            client.revision = self.stores[client.server].revision  # lists again
            return
        assert told == expected
        assert client.revision >= max((entry[0] for entry in self.log), default=0)

    @staticmethod
    def seen(entry, selection):
        revision, key, before, after, text_before, text_after = entry
        if selection == "red":
            before, after = (colour if colour == "red" else None for colour in (before, after))
        if after is not None:
            return (revision, "MODIFIED" if before is not None else "ADDED", key, after, text_after)
        if before is not None:
            return (revision, "DELETED", key, before, text_before)
        return None

    def teardown(self):
        if not hasattr(self, "runner"):
            return
        try:
            for client in self.clients:
                self.runner.run(self.follow(client))
        finally:
            self.runner.run(self.close())
            self.runner.close()
            self.directory.cleanup()


def hold_to_model(examples, ring, where=None, number=1):
    class Model(Watches):
        location = where
        servers = number

    with pytest.MonkeyPatch.context() as patch:  # small rings, so that history is needed
        patch.setattr(cacher_module, "RING_MAX", ring + 1)
        patch.setattr(cacher_module, "RING_MIN", ring)
        run_state_machine_as_test(Model, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None))


@pytest.mark.parametrize("ring", [0, 2, 100])
def test_watches_on_sqlite(ring):
    hold_to_model(12, ring)


@pytest.mark.skipif(ETCD is None, reason="needs Debian's etcd-server")
@pytest.mark.parametrize("ring", [2, 100])
def test_watches_of_two_servers_on_etcd(ring, tmp_path):
    with etcd(tmp_path) as server:
        hold_to_model(6, ring, server.location, 2)
