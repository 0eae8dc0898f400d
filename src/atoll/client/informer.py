"""A local, indexed copy of one resource, kept true by list and watch.

Lists once, then watches from the list's resourceVersion; every event and bookmark moves that version on, so that a broken watch resumes
where it stopped. Only a 410 makes it list again, and then the difference is told to the handlers as ordinary changes. Nothing polls: a
watch stays open until the server ends it. After failures it waits, doubling from 0.2 to 30 seconds with jitter.

Handlers are plain functions `(old, new)`: old is None when added, new is None when deleted. They run in the event loop and must not
block; they enqueue keys.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from atoll.client.objects import Object, key_of
from atoll.client.protocol import Client, is_expired
from atoll.client.resources import Resource
from atoll.errors import AtollError, StatusError

Objects = list[Object]
Handler = Callable[[Object | None, Object | None], None]
Indexer = Callable[[Object], Iterable[str]]  # the values under which an object is found

BACKOFF_BASE_S = 0.2
BACKOFF_MAX_S = 30.0  # client-go's reflector
HEALTHY_WATCH_S = 1.0  # a watch that ends sooner without an event counts as a failure, lest we spin
PAGE = 500  # client-go's default page of a list

logger = logging.getLogger(__name__)


class Informer:
    """One resource, of one namespace or all, optionally narrowed by selectors. `run` keeps it true until cancelled or stopped."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.resource = resource
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._jitter = jitter
        self._objects: dict[str, Object] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indices: dict[str, dict[str, dict[str, Object]]] = {}
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._stopped = asyncio.Event()
        self._version: str | None = None
        self._events_seen = 0

    # Reading

    def get(self, key: str) -> Object | None:
        """The object under `namespace/name` (or `name` at cluster scope). Shared: never change it."""
        return self._objects.get(key)

    def list(self, namespace: str | None = None) -> Objects:
        if namespace is None:
            return list(self._objects.values())
        prefix = f"{namespace}/"
        return [obj for key, obj in self._objects.items() if key.startswith(prefix)]

    def by_index(self, index: str, value: str) -> Objects:
        """Objects whose indexer `index` yields `value`."""
        return list(self._indices[index].get(value, {}).values())

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def has_synced(self) -> bool:
        """The first list has arrived and the handlers have seen it."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    # Setting up

    def add_index(self, index: str, indexer: Indexer) -> None:
        """Adding the same index twice keeps the first: shared informers are asked for it by several controllers."""
        if index in self._indexers:
            return
        self._indexers[index] = indexer
        self._indices[index] = {}
        for key, obj in self._objects.items():
            for value in indexer(obj):
                self._indices[index].setdefault(value, {})[key] = obj

    def add_handler(self, handler: Handler) -> None:
        """A handler added late is first told of everything already here."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            self._call(handler, None, obj)

    # Running

    async def run(self) -> None:
        """Until cancelled, or until `stop`."""
        following = asyncio.ensure_future(self._follow())
        stopping = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            for task in (following, stopping):
                task.cancel()
            await asyncio.gather(following, stopping, return_exceptions=True)

    def stop(self) -> None:
        self._stopped.set()

    async def _follow(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started, seen, expired = loop.time(), self._events_seen, False
            try:
                if self._version is None:
                    await self._relist()
                await self._watch()
            except (AtollError, OSError) as error:
                if is_expired(error):
                    logger.info("watch of %s is too old (%s): listing again", self.resource.plural, error)
                    self._version, expired = None, True
                else:
                    logger.warning("list/watch of %s failed: %s", self.resource.plural, error)
            except Exception:  # whatever it was, a control plane without eyes is worse than a retry
                logger.exception("list/watch of %s failed", self.resource.plural)
            if self._events_seen > seen or loop.time() - started >= HEALTHY_WATCH_S:
                failures = 0
            if failures or not expired:  # a first 410 lists again at once
                await asyncio.sleep(self._delay(failures))
            failures += 1

    def _delay(self, failures: int) -> float:
        return min(BACKOFF_BASE_S * 2.0 ** min(failures, 30), BACKOFF_MAX_S) * (1 + self._jitter())

    async def _relist(self) -> None:
        found: dict[str, Object] = {}
        token: str | None = None
        while True:
            page = await self._client.list(
                self.resource,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=PAGE,
                continue_=token,
            )
            for obj in page.get("items") or ():
                found[key_of(obj)] = obj
            token = page["metadata"].get("continue")
            if not token:
                break
        for key in [key for key in self._objects if key not in found]:
            self._remove(key)
        for key, obj in found.items():
            self._store(key, obj)
        self._version = page["metadata"]["resourceVersion"]
        self._synced.set()

    async def _watch(self) -> None:
        assert self._version is not None
        events = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            bookmarks=True,
        )
        try:
            async for kind, obj in events:
                if kind == "ERROR":
                    raise StatusError.from_status(obj)
                if kind == "DELETED":
                    self._remove(key_of(obj), obj)
                elif kind != "BOOKMARK":
                    self._store(key_of(obj), obj)
                self._version = obj["metadata"]["resourceVersion"]
                self._events_seen += 1
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def _store(self, key: str, obj: Object) -> None:
        old = self._objects.get(key)
        if old is not None and old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion"):
            return
        self._objects[key] = obj
        self._reindex(key, old, obj)
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            self._tell(old, None)  # deleted and made anew while we were not watching
            old = None
        self._tell(old, obj)

    def _remove(self, key: str, last: Object | None = None) -> None:
        old = self._objects.pop(key, None)
        if old is not None:
            self._reindex(key, old, None)
            self._tell(last or old, None)

    def _reindex(self, key: str, old: Object | None, new: Object | None) -> None:
        for index, indexer in self._indexers.items():
            entries = self._indices[index]
            if old is not None:
                for value in indexer(old):
                    bucket = entries.get(value)
                    if bucket is not None:
                        bucket.pop(key, None)
                        if not bucket:
                            del entries[value]
            if new is not None:
                for value in indexer(new):
                    entries.setdefault(value, {})[key] = new

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            self._call(handler, old, new)

    def _call(self, handler: Handler, old: Object | None, new: Object | None) -> None:
        try:
            handler(old, new)
        except Exception:
            about = new or old or {}
            logger.exception("handler of %s failed on %s", self.resource.plural, key_of(about) if about else "?")
