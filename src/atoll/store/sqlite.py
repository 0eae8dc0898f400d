"""The store on one SQLite file: compare in memory, commit in groups, announce in order.

The newest revision of every key is kept in a dict, so a write is accepted or refused at once on the event loop and gets its revision there.
Accepted writes gather until the last commit is on the disk, then go there together (WAL, synchronous=FULL), so sixteen writers cost hardly
more than one; then, back on the loop, the changes are announced and their callers answered. One group is under way at a time: the busier
the loop, the larger the next. Reads of history go through a second connection, beside the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from atoll.errors import Unavailable
from atoll.store import schema
from atoll.store.base import COMPACT_INTERVAL_S, Change, Compacted, CompareFailed, Past, Record, Subscriber
from atoll.store.committer import Committer
from atoll.store.lock import OwnerLock

_COMPACT_SLICE = 2_000  # revisions a transaction: bounds how long compaction holds up writes
_T = TypeVar("_T")


class _Pending(NamedTuple):
    change: Change
    done: asyncio.Future[int]


class SqliteStore:
    """Made by `open`; every method on the loop that opened it."""

    def __init__(self, path: Path, lock: OwnerLock, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self._lock = lock
        self._reader = reader
        self._reading = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._index: dict[str, int] = dict(writer.execute(schema.INDEX))
        self._leaving: dict[str, int] = {}  # deletions that have not been announced
        self._revision: int = writer.execute(schema.LAST_REVISION).fetchone()[0]
        self._next = self._revision
        self._compacted: int = writer.execute(schema.COMPACTED).fetchone()[0]
        self._subscribers: list[Subscriber] = []
        self._gathered: list[_Pending] = []
        self._committing = False
        self._settled: asyncio.Future[None] | None = None  # awaited by close: nothing gathered, nothing under way
        self._committer = Committer(f"store {path.name}", writer)
        self._compactor: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, compact_interval: float | None = COMPACT_INTERVAL_S) -> SqliteStore:
        """Open or make the store. Raises InUse when another process has it, Unavailable when it is damaged."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = OwnerLock(path.with_name(path.name + ".lock"))
        with contextlib.ExitStack() as undo:
            undo.callback(lock.release)
            writer = schema.connect(path)
            undo.callback(writer.close)
            schema.prepare(writer, path)
            reader = schema.connect(path, read_only=True)
            undo.callback(reader.close)
            store = cls(path, lock, writer, reader)
            undo.pop_all()
        if compact_interval:
            store._compactor = asyncio.create_task(store._compact_forever(compact_interval), name="store compaction")
        return store

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def compacted(self) -> int:
        return self._compacted

    @property
    def problem(self) -> str:
        return "the store is closed" if self._closed else ""

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    async def write(self, key: str, value: bytes | None, *, expected: int, payload: object = None) -> int:
        actual = self._index.get(key, 0)
        if actual != expected or (value is None and not actual):
            raise CompareFailed(key, expected, actual, actual or self._leaving.get(key, 0))
        if self._closed:
            raise Unavailable("the store is closed")
        self._next += 1
        change = Change(self._next, key, value, expected, payload)
        if value is None:
            del self._index[key]
            self._leaving[key] = change.revision
        else:
            self._index[key] = change.revision
        done: asyncio.Future[int] = self._loop.create_future()
        if not self._gathered and not self._committing:  # else the end of the commit under way takes it along
            self._loop.call_soon(self._commit)
        self._gathered.append(_Pending(change, done))
        # A caller that gives up cancels only its own answer: the write is already in order with the others.
        return await done

    async def settle(self) -> None:
        """Nobody else writes, and what is acknowledged has been announced."""

    async def scan(self, prefix: str, *, revision: int | None = None) -> list[Record]:
        at = self._revision if revision is None else revision
        if at < self._compacted:
            raise Compacted(at, self._compacted)
        rows = await self._read(lambda: self._reader.execute(schema.SCAN, (prefix, schema.prefix_end(prefix), at)).fetchall())
        if at < self._compacted:  # compacted while it was read
            raise Compacted(at, self._compacted)
        return [Record(*row) for row in rows]

    async def history(self, prefix: str, after: int) -> tuple[list[Past], int]:
        if after < self._compacted:
            raise Compacted(after, self._compacted)
        complete = self._revision
        rows = await self._read(lambda: self._reader.execute(schema.HISTORY, (after, prefix, schema.prefix_end(prefix))).fetchall())
        if after < self._compacted:
            raise Compacted(after, self._compacted)
        # Rows above `complete` are on disk but not announced yet: they come to the reader as announcements.
        return [Past(*row) for row in rows if row[0] <= complete], complete

    async def compact(self, revision: int) -> None:
        target = min(revision, self._revision)
        while self._compacted < target:
            start, end = self._compacted, min(self._compacted + _COMPACT_SLICE, target)
            self._compacted = end  # readers are refused before the rows go
            done = self._loop.create_future()
            self._committer.submit(partial(schema.compact, start=start, end=end), partial(_resolve, done))
            await done

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._compactor is not None:
            self._compactor.cancel()
            await asyncio.gather(self._compactor, return_exceptions=True)
        if self._gathered or self._committing:
            self._settled = self._loop.create_future()
            await self._settled
        await self._committer.close()
        self._reader.close()
        self._lock.release()

    async def _read(self, query: Callable[[], list[_T]]) -> list[_T]:
        def locked() -> list[_T]:
            with self._reading:
                return query()

        return await asyncio.to_thread(locked)

    async def _compact_forever(self, interval: float) -> None:
        """Keep between one and two intervals of history."""
        horizon = self._revision
        while True:
            await asyncio.sleep(interval)
            seen = self._revision
            await self.compact(horizon)
            horizon = seen

    def _commit(self) -> None:
        """Send what has gathered to the disk."""
        size = schema.group_size(len(self._gathered))
        group, self._gathered = self._gathered[:size], self._gathered[size:]
        values = [value for change, _ in group for value in (change.revision, change.key, change.previous, change.value)]
        self._committing = True
        statement = schema.insert(size)
        self._committer.submit(lambda connection: connection.execute(statement, values), partial(self._committed, group))

    def _committed(self, group: list[_Pending], failure: sqlite3.Error | None) -> None:
        self._committing = False
        if failure is None:
            self._announce(group)
        else:
            self._refuse(group + self._gathered, f"the store could not write: {failure}")
        if self._gathered:
            self._commit()
        elif self._settled is not None:
            self._settled.set_result(None)

    def _announce(self, group: list[_Pending]) -> None:
        changes = [pending.change for pending in group]
        self._revision = changes[-1].revision
        for subscriber in self._subscribers:
            subscriber(changes)
        for change, done in group:
            if change.value is None and self._leaving.get(change.key) == change.revision:
                del self._leaving[change.key]
            if not done.done():
                done.set_result(change.revision)

    def _refuse(self, pending: list[_Pending], why: str) -> None:
        """Nothing of these is on disk, and those gathered may build on those that failed: forget their revisions, go on from what is."""
        self._gathered = []
        self._leaving = {}
        self._next = self._revision
        with self._reading:
            self._index = dict(self._reader.execute(schema.INDEX))
        for _, done in pending:
            if not done.done():
                done.set_exception(Unavailable(why))


def _resolve(done: asyncio.Future[None], failure: sqlite3.Error | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(Unavailable(f"the store could not be compacted: {failure}"))
