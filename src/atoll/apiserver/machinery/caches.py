"""All cachers over one store: which one a change belongs to, and revisions that have yet to come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Cacher
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.waking import end
from atoll.store import Change, Record, Store

AHEAD_WAIT_S = 3.0  # upstream waits as long for a revision it has not seen yet


class Caches:
    """Loads the cachers at start and hands each change to the one it belongs to."""

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
            cacher.waiters.wake_in_turn()
        for revision, waiter in self._ahead:
            if revision <= self._store.revision:
                end(waiter)


def _prefix_of(key: str) -> str:
    return key[: key.index("/", key.index("/", 10) + 1) + 1]  # 10: what "/registry/" takes
