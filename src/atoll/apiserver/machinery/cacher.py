"""The objects of one kind in memory, as dict and as encoded bytes, and the ring of their latest changes.

Reads and lists take their bytes from here; they were encoded once, when the object was written. Watchers are cursors on the ring
(`watcher.py`). What the ring no longer holds is read back from the store's history, so a watch can be resumed, after a restart too, for as
long as the store remembers.

When the schema of a kind changes, or the version it is stored in, its objects are read anew one by one: whoever asks for one has it read,
and what nobody asks for is read a slice at a time in the background.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

import orjson

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Encoding, Event, Item, Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.waking import Waiters
from atoll.errors import Unavailable
from atoll.store import Change, Compacted, Past, Record, Store

RING_MAX = 2_048  # changes kept in memory for each kind, at most
RING_MIN = 1_024  # how many stay when the ring is cut: between the two it is not copied
RENEW_SLICE_S = 0.005  # what reading objects anew takes of the loop at a time, and leaves to it


class Cacher:
    """Made and fed by `Caches`."""

    def __init__(self, kind: Kind, store: Store) -> None:
        self.kind = kind
        self.prefix = kind.prefix
        self._store = store
        self._encoding = Encoding(kind)
        self._items: dict[str, Item] = {}
        self._as_stored: dict[str, bytes] = {}  # of the items that are read as something else than they were written
        self._stale: set[str] = set()  # the items that were read by a schema of before
        self._keys: list[str] | None = None
        self._ring: list[Event] = []
        self._floor = store.revision  # the ring is complete above this revision
        self.waiters = Waiters()
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
        if self._stale and key in self._stale:
            self._renew(key)
        return self._items.get(key)

    async def sought(self, key: str) -> Item | None:
        """The same, and not missed because another server on the store has only just written it."""
        item = self.get(key)
        if item is None:
            await self._store.settle()
            item = self.get(key)
        return item

    async def is_current(self, item: Item) -> bool:
        """Whether the object still is as `item` has it; ask before an answer is made of what may be old, without a compare-and-swap."""
        await self._store.settle()
        found = self._items.get(item.key)
        return found is not None and found.revision == item.revision

    def items(self) -> Iterable[Item]:
        """In no particular order."""
        for key in tuple(self._stale):
            self._renew(key)
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
        if self._stale:
            for key in self._stale.intersection(keys):
                self._renew(key)
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
            return [item for key in keys if (item := state[key] if key in state else self.get(key)) is not None], rest
        records = await self._store.scan(self.prefix, revision=revision)
        found = {record.key[len(self.prefix) :]: record for record in records}
        keys, rest = _range(sorted(found), namespace, after, limit)
        return [self._read(key, found[key].value, found[key].revision) for key in keys], rest

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
        await self.waiters.wait(seconds)

    def encode(self, obj: Object, api_version: str = "") -> bytes:
        """The bytes to store."""
        return self._encoding.encode(obj, api_version)

    def as_of(self, item: Item, revision: int) -> Item:
        """The same object under a later revision, as deletions and departures from a selection are told."""
        return self._encoding.moved(item, revision)

    def apply(self, change: Change) -> None:
        """Take in one acknowledged write. The payload, where there is one, is the object, from now on ours."""
        key = change.key[len(self.prefix) :]
        previous = self.get(key)
        if self._as_stored:
            self._as_stored.pop(key, None)
        if change.value is not None:
            obj = change.payload if isinstance(change.payload, dict) else orjson.loads(change.value)
            item = self._encoding.item(key, obj, change.value, change.revision)
            if item.obj is not obj:
                self._as_stored[key] = change.value
            self._items[key] = item
            if previous is None:
                self._keys = None
        elif previous is not None:
            del self._items[key]
            self._keys = None
            item = self._encoding.moved(previous, change.revision)
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
        self.waiters.wake()

    def adopt(self, other: Cacher) -> None:
        """Take over the objects of the cacher that held them under another version."""
        self._items, self._as_stored = dict(other._items), dict(other._as_stored)
        self.last_change = other.last_change
        other._stale.clear()
        self._distrust()

    def reread(self, kind: Kind) -> None:
        """The kind's schema has changed, or who converts its versions: what is stored is read by the new one."""
        if (kind.converter is None) != (self.kind.converter is None):  # changes were told in other versions
            self._ring.clear()
            self._floor = self._store.revision
        self.kind = kind
        self._encoding = Encoding(kind)
        for event in self._ring:
            event.encoded.clear()
        self._distrust()

    def load(self, records: Iterable[Record]) -> None:
        """The present state at start."""
        for record in records:
            key = record.key[len(self.prefix) :]
            self._put(key, record.value, record.revision)
        self._keys = None

    def _distrust(self) -> None:
        """All that was read is to be read anew."""
        self._keys = None
        idle = not self._stale
        self._stale = set(self._items)
        if idle and self._stale:
            asyncio.get_running_loop().call_later(RENEW_SLICE_S, self._renew_some)

    def _renew_some(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + RENEW_SLICE_S
        while self._stale:
            self._renew(next(iter(self._stale)))
            if loop.time() >= end:
                loop.call_later(RENEW_SLICE_S, self._renew_some)
                return

    def _renew(self, key: str) -> None:
        """Nothing is done for an object that reads as it did."""
        self._stale.discard(key)
        item = self._items.get(key)
        if item is None:  # it has gone
            return
        stored = self._as_stored.pop(key, None)
        if stored is not None or self._encoding.differs(item.obj):
            self._put(key, stored or self._encoding.encode(item.obj, item.obj["apiVersion"]), item.revision)

    def _put(self, key: str, stored: bytes, revision: int) -> None:
        obj, read = self._encoding.read(stored)
        item = self._items[key] = self._encoding.item(key, obj, read, revision)
        if read is not stored or item.obj is not obj:
            self._as_stored[key] = stored

    def _read(self, key: str, stored: bytes, revision: int) -> Item:
        return self._encoding.item(key, *self._encoding.read(stored), revision)

    def _recall(self, past: Past) -> Event:
        key = past.key[len(self.prefix) :]
        before = self._read(key, past.before, past.before_revision) if past.before is not None else None
        if past.value is not None:
            return Event(past.revision, self._read(key, past.value, past.revision), before, False)
        if before is None:
            raise Unavailable(f"the history of {past.key} is broken at revision {past.revision}: its last value is missing")
        return Event(past.revision, self._encoding.moved(before, past.revision), before, True)


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
