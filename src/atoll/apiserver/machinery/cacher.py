"""The objects of one kind in memory, as dict and as encoded bytes, and the ring of their latest changes.

Reads and lists take their bytes from here; they were encoded once, when the object was written. Watchers are cursors on the ring
(`watcher.py`). What the ring no longer holds is read back from the store's history, so a watch can be resumed, after a restart too, for as
long as the store remembers.

Stored bytes carry no resourceVersion: the store hands it out at commit, and it is spliced in as the first field of `metadata`. Neither a
stored dict nor a stored Item is ever changed in place; readers in this process share them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import Kind
from atoll.errors import Unavailable
from atoll.store import Change, Compacted, Past, Record, Store

Object = dict[str, Any]
RING_MAX = 2_048  # changes kept in memory for each kind, at most
RING_MIN = 1_024  # how many stay when the ring is cut: between the two it is not copied
UNPACED = 10  # so many watchers are woken at each change
TELLING_S = 0.0003  # over twice what waking one watcher and writing to it takes
BURST_WAIT_MAX_S = 0.05
AHEAD_WAIT_S = 3.0  # upstream waits as long for a revision it has not seen yet


@dataclass(frozen=True, slots=True)
class Item:
    """One stored object. `key` is "<namespace>/<name>" or "<name>"; `body` its JSON, resourceVersion included."""

    key: str
    obj: Object
    body: bytes
    revision: int


@dataclass(slots=True)
class Event:
    """One change. For a delete, `item` is the last state under the revision of the deletion."""

    revision: int
    item: Item
    previous: Item | None
    deleted: bool
    encoded: dict[Any, bytes] = field(default_factory=dict)  # by form, so that each is made once for all watchers


class Cacher:
    """Made and fed by `Caches`."""

    def __init__(self, kind: Kind, store: Store) -> None:
        self.kind = kind
        self.prefix = kind.prefix
        self._store = store
        self._head = _head(kind.kind, kind.api_version)
        self._items: dict[str, Item] = {}
        self._as_stored: dict[str, bytes] = {}  # of the items that are read as something else than they were written
        self._keys: list[str] | None = None
        self._ring: list[Event] = []
        self._floor = store.revision  # the ring is complete above this revision
        self._waiters: set[asyncio.Future[None]] = set()
        self._woken = 0.0  # when, by the loop's clock
        self._waking: asyncio.TimerHandle | None = None
        self._listeners: list[Callable[[Event], None]] = []
        self.last_change = 0  # the revision at which anything of this kind last changed, as far as this process saw
        self.epoch = 0  # moves when all watches are to end

    @property
    def revision(self) -> int:
        """What lists and bookmarks carry: all changes of this kind up to here are in."""
        return self._store.revision

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Item | None:
        return self._items.get(key)

    async def sought(self, key: str) -> Item | None:
        """The same, and not missed because another server on the store has only just written it."""
        item = self._items.get(key)
        if item is None:
            await self._store.settle()
            item = self._items.get(key)
        return item

    async def is_current(self, item: Item) -> bool:
        """Whether the object still is as `item` has it; ask before an answer is made of what may be old, without a compare-and-swap."""
        await self._store.settle()
        return self._items.get(item.key) is item

    def items(self) -> Iterable[Item]:
        """In no particular order."""
        return self._items.values()

    def in_order(self, namespace: str | None = None, after: str = "") -> list[Item]:
        """The present objects in key order, of one namespace or all, with keys above `after`."""
        return self._present(namespace, after, 0)[0]

    def _present(self, namespace: str | None, after: str, limit: int) -> tuple[list[Item], int]:
        if not self._items:
            return [], 0
        if self._keys is None:
            self._keys = sorted(self._items)
        keys, rest = _range(self._keys, namespace, after, limit)
        return [self._items[key] for key in keys], rest

    async def at(self, revision: int, namespace: str | None, after: str, limit: int = 0) -> tuple[list[Item], int]:
        """The objects as they stood at `revision`, the first `limit` of them, and how many more there were. Raises Compacted."""
        if revision >= self.revision:
            return self._present(namespace, after, limit)
        if revision >= self._floor:
            state: dict[str, Item | None] = {}
            for event in reversed(self._ring[bisect_right(self._ring, revision, key=_revision) :]):
                state[event.item.key] = event.previous
            merged: dict[str, Item | None] = {**self._items, **state} if state else dict(self._items)
            keys, rest = _range(sorted(key for key, item in merged.items() if item is not None), namespace, after, limit)
            return [item for key in keys if (item := merged[key]) is not None], rest
        records = await self._store.scan(self.prefix, revision=revision)
        found = {record.key[len(self.prefix) :]: record for record in records}
        keys, rest = _range(sorted(found), namespace, after, limit)
        return [self._load(found[key]) for key in keys], rest

    async def since(self, revision: int) -> Sequence[Event]:
        """Changes above `revision`, oldest first, some or all; empty when there are none yet. Raises StatusError 410."""
        if revision >= self._floor:
            return self._ring[bisect_right(self._ring, revision, key=_revision) :]
        try:
            past, complete = await self._store.history(self.prefix, revision)
        except Compacted as gone:
            raise statuses.too_old(revision, gone.revision) from None
        events = [self._recall(change) for change in past]
        if complete >= self._floor:
            have = events[-1].revision if events else revision
            events += self._ring[bisect_right(self._ring, max(have, complete), key=_revision) :]
        return events

    async def settle(self) -> None:
        """Come up to what every server on the store has acknowledged."""
        await self._store.settle()

    async def changed(self, seconds: float) -> None:
        """Return after the next change of this kind, or so many seconds."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(seconds, _end, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def encode(self, obj: Object, api_version: str = "") -> bytes:
        """The bytes to store: kind, apiVersion and metadata first, no resourceVersion."""
        metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
        head = {"kind": self.kind.kind, "apiVersion": api_version or self.kind.api_version, "metadata": metadata}
        return orjson.dumps({**head, **{name: value for name, value in obj.items() if name not in head}})

    def apply(self, change: Change) -> None:
        """Take in one acknowledged write. The payload, where there is one, is the object, from now on ours."""
        key = change.key[len(self.prefix) :]
        previous = self._items.get(key)
        if self._as_stored:
            self._as_stored.pop(key, None)
        if change.value is not None:
            obj = change.payload if isinstance(change.payload, dict) else orjson.loads(change.value)
            item = self._item(key, obj, change.value, change.revision)
            self._items[key] = item
            if previous is None:
                self._keys = None
        elif previous is not None:
            del self._items[key]
            self._keys = None
            item = self._moved(previous, change.revision)
        else:
            return
        self.last_change = change.revision
        self._ring.append(Event(change.revision, item, previous, change.value is None))
        if len(self._ring) > RING_MAX:
            cut = len(self._ring) - RING_MIN
            self._floor = self._ring[cut - 1].revision
            del self._ring[:cut]

        for listener in self._listeners:
            listener(self._ring[-1])

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call it at once with each change, before the write is answered. It must not raise or wait."""
        self._listeners.append(listener)

    def end_watches(self) -> None:
        """The kind is not what it was: watches end once they have told what there is, and clients come back for more."""
        self.epoch += 1
        self.wake()

    def adopt(self, other: Cacher) -> None:
        """Take over the objects of the cacher that held them under another version."""
        for item in other.items():
            self._items[item.key] = self._item(item.key, {**item.obj, "metadata": dict(item.obj["metadata"])}, b"", item.revision)
        self._keys = None
        self.last_change = other.last_change

    def reread(self, kind: Kind) -> None:
        """The kind's schema has changed: what is stored is read by the new one."""
        self.kind = kind
        for event in self._ring:
            event.encoded.clear()
        for item in list(self._items.values()):
            stored = self._as_stored.pop(item.key, None)
            is_own = item.obj["apiVersion"] == kind.api_version
            if stored is not None or (is_own and kind.schema.restored(item.obj) is not item.obj):
                self._put(item.key, stored or self.encode(item.obj, item.obj["apiVersion"]), item.revision)

    def wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _end(waiter)

    def wake_in_turn(self) -> None:
        """Wake at once after a pause. In a burst, wake so late that what many watchers cost leaves time for others: each then takes
        several changes in one piece.
        """
        if self._waking is not None:
            return
        loop, count = asyncio.get_running_loop(), len(self._waiters)
        now = loop.time()
        due = self._woken + min(count * TELLING_S, BURST_WAIT_MAX_S) if count > UNPACED else now
        if due > now:
            self._waking = loop.call_at(due, self._wake_late)
        else:
            self._woken = now
            self.wake()

    def _wake_late(self) -> None:
        self._woken = asyncio.get_running_loop().time()
        self.wake()

    def load(self, records: Iterable[Record]) -> None:
        """The present state at start."""
        for record in records:
            self._put(record.key[len(self.prefix) :], record.value, record.revision)
        self._keys = None

    def _put(self, key: str, stored: bytes, revision: int) -> None:
        obj, read = self._read(stored)
        if read is not stored:
            self._as_stored[key] = stored
        self._items[key] = self._item(key, obj, read, revision)

    def as_of(self, item: Item, revision: int) -> Item:
        """The same object under a later revision, as deletions and departures from a selection are told."""
        return self._moved(item, revision)

    def _load(self, record: Record) -> Item:
        return self._item(record.key[len(self.prefix) :], *self._read(record.value), record.revision)

    def _read(self, stored: bytes) -> tuple[Object, bytes]:
        """What was written as it reads by the kind's schema of today. Of another version's fields the schema knows nothing."""
        obj: Object = orjson.loads(stored)
        restored = self.kind.schema.restored(obj) if obj["apiVersion"] == self.kind.api_version else obj
        return (obj, stored) if restored is obj else (restored, self.encode(restored))

    def _recall(self, past: Past) -> Event:
        key = past.key[len(self.prefix) :]
        before = self._item(key, *self._read(past.before), past.before_revision) if past.before is not None else None
        if past.value is not None:
            return Event(past.revision, self._item(key, *self._read(past.value), past.revision), before, False)
        if before is None:
            raise Unavailable(f"the history of {past.key} is broken at revision {past.revision}: its last value is missing")
        return Event(past.revision, self._moved(before, past.revision), before, True)

    def _head_of(self, obj: Object) -> bytes:
        """The kind's own, but for what a webhook has yet to convert: it stays in the version it was written in."""
        return self._head if obj["apiVersion"] == self.kind.api_version else _head(self.kind.kind, obj["apiVersion"])

    def _item(self, key: str, obj: Object, stored: bytes, revision: int) -> Item:
        head = self._head
        if not stored.startswith(head):  # it was written when another version of the kind was stored
            if self.kind.converter is None:
                obj = {**obj, "apiVersion": self.kind.api_version}
            head = self._head_of(obj)
            if not stored.startswith(head):
                stored = self.encode(obj, obj["apiVersion"])
        obj["metadata"]["resourceVersion"] = str(revision)
        return Item(key, obj, b'%s"resourceVersion":"%d",%s' % (head, revision, stored[len(head) :]), revision)

    def _moved(self, item: Item, revision: int) -> Item:
        head = self._head_of(item.obj)
        tail = item.body[len(head) + len(b'"resourceVersion":"%d",' % item.revision) :]
        obj = {**item.obj, "metadata": {**item.obj["metadata"], "resourceVersion": str(revision)}}
        return Item(item.key, obj, b'%s"resourceVersion":"%d",%s' % (head, revision, tail), revision)


def _head(kind: str, api_version: str) -> bytes:
    """How the bytes of an object begin, up to what its metadata holds."""
    return orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": {}})[:-2]


class Caches:
    """All cachers over one store: loads them at start and hands each change to the one it belongs to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cachers: dict[str, Cacher] = {}
        self._reading: dict[str, list[Change]] = {}  # what is announced of a prefix while its present state is read
        self._ahead: list[tuple[int, asyncio.Future[None]]] = []  # who waits for a revision that has not been announced
        store.subscribe(self._announce)

    @property
    def revision(self) -> int:
        return self._store.revision

    async def load(self, kinds: Iterable[Kind]) -> None:
        records, arrived = await self._read("/registry/")
        for kind in kinds:
            if not kind.storage_group_version:
                self._cachers[kind.prefix] = Cacher(kind, self._store)
        found: dict[str, list[Record]] = {}
        for record in records:
            found.setdefault(_prefix_of(record.key), []).append(record)
        for prefix, present in found.items():
            if prefix in self._cachers:
                self._cachers[prefix].load(present)
        self._announce(arrived)

    def of(self, kind: Kind) -> Cacher:
        cacher = self._cachers.get(kind.prefix)
        if cacher is None:  # a custom resource whose definition has just gone
            raise statuses.no_such_path()
        return cacher

    async def open(self, kind: Kind) -> None:
        """Serve a kind that came after `load`, with what the store has of it."""
        records, arrived = await self._read(kind.prefix)
        cacher = Cacher(kind, self._store)
        cacher.load(records)
        self._cachers[cacher.prefix] = cacher
        self._announce(arrived)

    def replace(self, before: Kind | None, kind: Kind) -> None:
        """Serve a new kind, of which nothing is stored yet, or one that is now stored as `kind` and was stored as `before`."""
        prefix = kind.prefix
        present = self._cachers.get(prefix)
        if present is not None and (before is None or before.api_version == kind.api_version):
            present.reread(kind)
            return
        cacher = self._cachers[prefix] = Cacher(kind, self._store)
        if present is not None:
            cacher.adopt(present)
            present.end_watches()

    def close(self, kind: Kind) -> None:
        """Serve the kind no more."""
        cacher = self._cachers.pop(kind.prefix, None)
        if cacher is not None:
            cacher.end_watches()

    async def _read(self, prefix: str) -> tuple[list[Record], list[Change]]:
        """The records under a prefix, and the changes that were announced while they were read: other servers may write to the store."""
        at, arrived = self._store.revision, list[Change]()
        self._reading[prefix] = arrived
        try:
            return await self._store.scan(prefix, revision=at), arrived
        finally:
            del self._reading[prefix]

    async def reach(self, revision: int) -> None:
        """Wait until `revision` has been announced. Raises StatusError 504 when it does not come."""
        if self._store.revision >= revision:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._ahead.append((revision, waiter))
        try:
            async with asyncio.timeout(AHEAD_WAIT_S):
                await waiter
        except TimeoutError:
            raise statuses.version_ahead(revision, self._store.revision) from None
        finally:
            self._ahead = [entry for entry in self._ahead if entry[1] is not waiter]

    def _announce(self, changes: Sequence[Change]) -> None:
        for prefix, arrived in self._reading.items():
            arrived += [change for change in changes if change.key.startswith(prefix)]
        touched = set()
        for change in changes:
            cacher = self._cachers.get(_prefix_of(change.key))
            if cacher is not None:
                cacher.apply(change)
                touched.add(cacher)
        for cacher in touched:
            cacher.wake_in_turn()
        for revision, waiter in self._ahead:
            if revision <= self._store.revision:
                _end(waiter)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _prefix_of(key: str) -> str:
    return key[: key.index("/", key.index("/", 10) + 1) + 1]  # 10: what "/registry/" takes


def _range(keys: list[str], namespace: str | None, after: str, limit: int) -> tuple[list[str], int]:
    """The first `limit` keys (0: all) of a namespace above `after`, and how many follow them."""
    low = bisect_right(keys, after) if after else 0
    high = len(keys)
    if namespace is not None:
        low, high = max(low, bisect_left(keys, namespace + "/")), bisect_left(keys, namespace + "0")  # "0" follows "/"
    end = min(low + limit, high) if limit else high
    return keys[low:end], max(high - end, 0)


def _revision(event: Event) -> int:
    return event.revision
