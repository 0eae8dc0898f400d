"""The store on etcd v3: the same contract as on SQLite, for several API servers at once.

What is announced, also of our own writes, is what etcd's watch tells: one stream over all keys, so that every revision brings an event and
the last one seen says how far we are. A write is a compare-and-swap in etcd and is answered when its event has come by; a consistent read
asks etcd for its newest revision and waits for that. The stream is taken up where it broke off. Where etcd has compacted what was missed,
nothing can be announced in order any more: the store says so, and refuses everything until the process is started again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from atoll.errors import Unavailable
from atoll.store.base import COMPACT_INTERVAL_S, Change, Compacted, CompareFailed, Past, Record, Subscriber
from atoll.store.gateway import EtcdTls, Event, Gateway, HistoryGone, KeyValue, key_after
from atoll.store.schema import prefix_end

log = logging.getLogger(__name__)

_PAGE = 1_000  # keys a range call: bounds one answer to some megabytes
_ANNOUNCE_S = 10.0  # for an event to come after its write
_RETRY_S = (0.05, 0.2, 1.0, 2.0)  # between tries to take up a broken watch; the last one for ever
COMPACTOR_KEY = "compact_rev_key"  # upstream's: whoever moves it from the value it saw compacts, so that several servers do not


class EtcdStore:
    """Made by `open`; every method on the loop that opened it."""

    def __init__(self, gateway: Gateway, revision: int) -> None:
        self._gateway = gateway
        self._revision = revision
        self._compacted = 0
        self._index: dict[str, int] = {}
        self._subscribers: list[Subscriber] = []
        self._payloads: dict[tuple[str, bytes], object] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._asking: asyncio.Task[int] | None = None  # for the newest revision
        self._tasks: list[asyncio.Task[None]] = []
        self._problem = ""  # for good
        self._interruption = ""  # for the moment

    @classmethod
    async def open(cls, location: str, *, compact_interval: float | None = COMPACT_INTERVAL_S, tls: EtcdTls | None = None) -> EtcdStore:
        """`location` is etcd://host:port, or etcds://host:port with `tls`.

        Raises InvalidInput for one that is none, Unavailable where etcd does not answer.
        """
        gateway = Gateway(location, tls)
        try:
            store = cls(gateway, await gateway.revision())
            store._index = {found.key: found.revision for found in await store._range("/registry/", store._revision)}
        except BaseException:
            await gateway.close()
            raise
        store._tasks.append(asyncio.create_task(store._follow(), name="etcd watch"))
        if compact_interval:
            store._tasks.append(asyncio.create_task(store._compact_forever(compact_interval), name="etcd compaction"))
        return store

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def compacted(self) -> int:
        return self._compacted

    @property
    def problem(self) -> str:
        return self._problem or self._interruption

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    async def write(self, key: str, value: bytes | None, *, expected: int, payload: object = None) -> int:
        self._check()
        if value is None and not expected:
            raise CompareFailed(key, 0, self._index.get(key, 0))
        if value is not None and payload is not None:
            self._payloads[key, value] = payload
        try:
            revision, actual = await self._gateway.swap(key, value, expected)
            if actual >= 0:
                raise CompareFailed(key, expected, actual, revision)
            await self._reach(revision)
        finally:
            if value is not None:
                self._payloads.pop((key, value), None)
        return revision

    async def settle(self) -> None:
        self._check()
        asking = self._asking
        if asking is not None and not asking.done():  # asked before this call: the answer may be older than what our caller knows of
            await asyncio.wait((asking,))
        if self._asking is asking:  # else another who waited has asked anew, for both
            self._asking = asyncio.create_task(self._gateway.revision(), name="etcd revision")
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, should nobody wait any more
        assert self._asking is not None
        await self._reach(await asyncio.shield(self._asking))

    async def scan(self, prefix: str, *, revision: int | None = None) -> list[Record]:
        self._check()
        at = self._revision if revision is None else revision
        try:
            return [Record(*found) for found in await self._range(prefix, at)]
        except HistoryGone as gone:
            raise self._gone(at, gone) from None

    async def history(self, prefix: str, after: int) -> tuple[list[Past], int]:
        self._check()
        complete = self._revision
        past: list[Past] = []
        if after >= complete:
            return past, complete
        events = self._gateway.watch(after, with_before=True)
        try:
            async with asyncio.timeout(_ANNOUNCE_S):
                async for batch in events:
                    past += [_past(event) for event in batch if event.key.startswith(prefix) and event.revision <= complete]
                    if batch and batch[-1].revision >= complete:
                        break
        except HistoryGone as gone:
            raise self._gone(after, gone) from None
        except TimeoutError:
            raise Unavailable(f"{self._gateway.location} did not tell its history after {after} within {_ANNOUNCE_S:g} s") from None
        finally:
            await events.aclose()  # type: ignore[attr-defined]  # a generator, promised as an iterator
        return past, complete

    async def compact(self, revision: int) -> None:
        target = min(revision, self._revision)
        if target <= self._compacted:
            return
        try:
            await self._gateway.compact(target)
        except HistoryGone:
            return  # another has compacted beyond it
        self._compacted = target

    async def close(self) -> None:
        self._problem = "the store is closed"
        for task in (*self._tasks, *([self._asking] if self._asking else ())):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._fail()
        await self._gateway.close()

    def _check(self) -> None:
        if self._problem:
            raise Unavailable(self._problem)

    def _gone(self, asked: int, gone: HistoryGone) -> Compacted:
        self._compacted = max(self._compacted, gone.revision)
        return Compacted(asked, self._compacted)

    async def _range(self, prefix: str, revision: int) -> list[KeyValue]:
        found: list[KeyValue] = []
        key, more = prefix, True
        while more:
            page, more = await self._gateway.range(key, prefix_end(prefix), revision, _PAGE)
            found += page
            if more:
                key = key_after(page)
        return found

    async def _reach(self, revision: int) -> None:
        """Wait until `revision` has been announced. Raises Unavailable when its event does not come."""
        if self._revision >= revision:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, waiter))
        try:
            async with asyncio.timeout(_ANNOUNCE_S):
                await waiter
        except TimeoutError:
            told = f"{self._gateway.location} did not tell of revision {revision} within {_ANNOUNCE_S:g} s"
            raise Unavailable(f"{told}: a write may have been done all the same") from None
        finally:
            self._waiting = [entry for entry in self._waiting if entry[1] is not waiter]

    async def _follow(self) -> None:
        tries = 0
        while True:
            try:
                async for events in self._gateway.watch(self._revision):
                    tries, self._interruption = 0, ""
                    if events:
                        self._announce(events)
            except HistoryGone as gone:
                told = f"{self._gateway.location} has compacted its history up to {gone.revision}"
                self._problem = f"{told}, and this server had come to {self._revision}: start it again"
                log.critical("%s", self._problem)
                self._fail()
                return
            except Unavailable as error:
                self._interruption = str(error)
                log.warning("%s", error)
            await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
            tries += 1

    def _announce(self, events: Sequence[Event]) -> None:
        changes = [self._change(event) for event in events if event.key.startswith("/registry/")]
        self._revision = events[-1].revision
        if changes:
            for subscriber in self._subscribers:
                subscriber(changes)
        for revision, waiter in self._waiting:
            if revision <= self._revision and not waiter.done():
                waiter.set_result(None)

    def _change(self, event: Event) -> Change:
        previous = self._index.pop(event.key, 0)
        if event.value is None:
            return Change(event.revision, event.key, None, previous)
        self._index[event.key] = event.revision
        return Change(event.revision, event.key, event.value, previous, self._payloads.get((event.key, event.value)))

    def _fail(self) -> None:
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(Unavailable(self._problem))

    async def _compact_forever(self, interval: float) -> None:
        """Keep between one and two intervals of history, together with all other servers on the same etcd."""
        horizon = self._revision
        while True:
            await asyncio.sleep(interval)
            try:
                mark = await self._gateway.range(COMPACTOR_KEY, COMPACTOR_KEY + "\0", 0, 1)
                seen = self._revision
                _, lost_to = await self._gateway.swap(COMPACTOR_KEY, str(horizon).encode(), mark[0][0].revision if mark[0] else 0)
                if lost_to < 0:
                    await self.compact(horizon)
                horizon = seen
            except (Unavailable, HistoryGone) as error:
                log.warning("compaction: %s", error)


def _past(event: Event) -> Past:
    before = event.before
    return Past(event.revision, event.key, event.value, before.value if before else None, before.revision if before else 0)
