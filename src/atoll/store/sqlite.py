"""The store on one SQLite file: compare in memory, commit in groups, announce in order.

The newest revision of every key is kept in a dict, so a write is accepted or refused at once on the event loop and gets its revision there.
One thread owns the connection that writes: it takes all that has queued up while the last commit was on its way to the disk and commits
it as one transaction (WAL, synchronous=FULL), so sixteen writers cost hardly more than one. Then, back on the loop, the changes are
announced and their callers answered. Reads of history go through a second connection, beside the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from atoll.errors import Unavailable
from atoll.store import schema
from atoll.store.base import Change, Compacted, CompareFailed, Past, Record, Subscriber
from atoll.store.lock import OwnerLock

_BATCH_MAX = 512  # writes a commit: bounds how long one fsync holds up the next
_COMPACT_SLICE = 2_000  # revisions a transaction: bounds how long compaction holds up writes
COMPACT_INTERVAL_S = 300.0  # upstream's --etcd-compaction-interval
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Pending:
    change: Change
    epoch: int
    done: asyncio.Future[int]


class SqliteStore:
    """Made by `open`; every method on the loop that opened it."""

    def __init__(self, path: Path, lock: OwnerLock, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self._lock = lock
        self._writer = writer
        self._reader = reader
        self._reading = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._index: dict[str, int] = dict(writer.execute(schema.INDEX))
        self._revision: int = writer.execute(schema.LAST_REVISION).fetchone()[0]
        self._next = self._revision
        self._compacted: int = writer.execute(schema.COMPACTED).fetchone()[0]
        self._subscribers: list[Subscriber] = []
        self._outbox: list[_Pending] = []
        self._queue: queue.SimpleQueue[list[_Pending] | Callable[[], None] | None] = queue.SimpleQueue()
        self._epoch = 0
        self._thread = threading.Thread(target=self._write_loop, name=f"store {path.name}", daemon=True)
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
        store._thread.start()
        if compact_interval:
            store._compactor = asyncio.create_task(store._compact_forever(compact_interval), name="store compaction")
        return store

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def compacted(self) -> int:
        return self._compacted

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    async def write(self, key: str, value: bytes | None, *, expected: int, payload: object = None) -> int:
        actual = self._index.get(key, 0)
        if actual != expected or (value is None and not actual):
            raise CompareFailed(key, expected, actual)
        if self._closed:
            raise Unavailable("the store is closed")
        self._next += 1
        change = Change(self._next, key, value, expected, payload)
        if value is None:
            del self._index[key]
        else:
            self._index[key] = change.revision
        done = self._loop.create_future()
        if not self._outbox:  # one hand-over a turn of the loop: each wakes the thread, which then wants the GIL
            self._loop.call_soon(self._hand_over)
        self._outbox.append(_Pending(change, self._epoch, done))
        # A caller that gives up does not undo its write: it is already in order with the others.
        return await asyncio.shield(done)

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
            self._queue.put(lambda start=start, end=end, done=done: self._compact_slice(start, end, done))  # type: ignore[misc]
            await done

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._compactor is not None:
            self._compactor.cancel()
            await asyncio.gather(self._compactor, return_exceptions=True)
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the last announcements, already on the loop's list, go out
        self._reader.close()
        self._writer.close()
        self._lock.release()

    def _hand_over(self) -> None:
        if self._outbox:
            self._queue.put(self._outbox)
            self._outbox = []

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

    # Below: the writer's thread.

    def _write_loop(self) -> None:
        refused = -1  # writes of this epoch and before were built on one that failed
        while True:
            first = self._queue.get()
            if first is None:
                return
            if not isinstance(first, list):
                first()
                continue
            batch, after = self._gather(first)
            live = [pending for pending in batch if pending.epoch > refused]
            stale = [pending for pending in batch if pending.epoch <= refused]
            try:
                if live:
                    self._commit([pending.change for pending in live])
                    self._loop.call_soon_threadsafe(self._announce, live)
            except sqlite3.Error as error:
                refused = max(pending.epoch for pending in live)
                stale = batch
                self._loop.call_soon_threadsafe(self._refuse, stale, f"the store could not write: {error}")
            else:
                if stale:
                    self._loop.call_soon_threadsafe(self._refuse, stale, "the store could not write: an earlier write failed")
            if after is None:
                continue
            if after is _STOP:
                return
            after()

    def _gather(self, first: list[_Pending]) -> tuple[list[_Pending], Callable[[], None] | None]:
        """All that waits, until the batch has its bound or an entry comes that is not a write."""
        batch = first
        while len(batch) < _BATCH_MAX:
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return batch, None
            if entry is None:
                return batch, _STOP
            if not isinstance(entry, list):
                return batch, entry
            batch += entry
        return batch, None

    def _commit(self, changes: list[Change]) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.executemany(schema.INSERT, [(c.revision, c.key, c.previous, c.value) for c in changes])
            self._writer.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def _compact_slice(self, start: int, end: int, done: asyncio.Future[None]) -> None:
        error: sqlite3.Error | None = None
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute(schema.COMPACT_REPLACED, (start, end))
            self._writer.execute(schema.COMPACT_DELETES, (start, end))
            self._writer.execute(schema.COMPACT_MARK, (end,))
            self._writer.execute("COMMIT")
        except sqlite3.Error as failure:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            error = failure
        self._loop.call_soon_threadsafe(_resolve, done, error)

    # Back on the loop.

    def _announce(self, batch: list[_Pending]) -> None:
        changes = [pending.change for pending in batch]
        self._revision = changes[-1].revision
        for subscriber in self._subscribers:
            subscriber(changes)
        for pending in batch:
            if not pending.done.done():
                pending.done.set_result(pending.change.revision)

    def _refuse(self, batch: list[_Pending], why: str) -> None:
        """Nothing of the failed epoch is on disk: forget its revisions, so that the next write continues from what is."""
        if batch[-1].epoch == self._epoch:
            self._epoch += 1
            self._next = self._revision
            with self._reading:
                self._index = dict(self._reader.execute(schema.INDEX))
        for pending in batch:
            if not pending.done.done():
                pending.done.set_exception(Unavailable(why))


def _stop() -> None:
    """Marks the end of the queue among the callables."""


_STOP: Callable[[], None] = _stop


def _resolve(done: asyncio.Future[None], error: sqlite3.Error | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(Unavailable(f"the store could not be compacted: {error}"))
