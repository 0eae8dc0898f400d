"""One watch: a cursor on a kind's changes, seen through a selection.

A watcher holds nothing but the revision it has come to. It asks the cacher for what came after, so a slow one costs no memory: it falls
back to the store's history, and when that too is compacted it is told 410 and lists again. A change that moves an object into or out of
the selection becomes ADDED or DELETED, as seen from inside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from atoll.apiserver.machinery.cacher import Cacher
from atoll.apiserver.machinery.items import Event, Item
from atoll.apiserver.machinery.selectors import Selector

BOOKMARK_INTERVAL_S = 60.0  # upstream: about a minute
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Delivery(NamedTuple):
    """What a watcher is told. `item` is None for a bookmark; `event` carries the cache of encodings where there is one."""

    type: str
    item: Item | None
    revision: int
    event: Event | None = None
    initial_end: bool = False


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """`since` None: begin with the present objects as ADDED, unless they are to be skipped; otherwise with the changes above it."""

    namespace: str | None
    selector: Selector
    since: int | None
    bookmarks: bool
    initial_end: bool  # mark the end of the present objects with an annotated bookmark
    timeout: float
    skips_present: bool = False
    not_older: int = 0  # the present objects are those of this revision or a later one


Convert = Callable[[Sequence[Item]], Awaitable[list[Item]]]


async def watch(cacher: Cacher, plan: WatchPlan, convert: Convert | None = None) -> AsyncIterator[list[Delivery]]:
    """Batches of deliveries, never empty, until the plan's timeout. Raises StatusError 410 when history has gone.

    `convert` gives the version the selection is to be judged by, where that is not the one stored; it is then the one delivered.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + plan.timeout
    epoch = cacher.epoch
    if plan.since is None:
        await cacher.settle()
        revision = cacher.revision
        present = cacher.in_order(plan.namespace) if not plan.skips_present else []
        if convert is not None:
            present = await convert(present)
        first = [Delivery("ADDED", item, item.revision) for item in present if plan.selector.matches(item.obj)]
        if plan.initial_end:
            first.append(Delivery("BOOKMARK", None, revision, initial_end=True))
        if first:
            yield first
    else:
        revision = plan.since
    told = loop.time()
    while True:
        complete = cacher.revision
        events = await cacher.since(revision)
        if events:
            revision = events[-1].revision
            if convert is not None:
                events = await _converted([event for event in events if _is_inside(event, plan)], convert)
            batch = [delivery for event in events if (delivery := _seen(cacher, event, plan)) is not None]
            if batch:
                told = loop.time()
                yield batch
            continue
        # Nothing of this kind up to `complete`: move on, so that an idle kind's watcher never falls behind compaction.
        revision = max(revision, complete)
        if cacher.revision > revision:  # written while history was read
            continue
        now = loop.time()
        if now >= end or cacher.epoch != epoch:
            if plan.bookmarks:
                yield [Delivery("BOOKMARK", None, revision)]
            return
        if plan.bookmarks and now - told >= BOOKMARK_INTERVAL_S:
            told = now
            yield [Delivery("BOOKMARK", None, revision)]
            continue
        await cacher.changed(min(end, told + BOOKMARK_INTERVAL_S if plan.bookmarks else now + BOOKMARK_INTERVAL_S) - now)


def _is_inside(event: Event, plan: WatchPlan) -> bool:
    return plan.namespace is None or event.item.key.startswith(plan.namespace + "/")


async def _converted(events: Sequence[Event], convert: Convert) -> list[Event]:
    """The changes as another version has them, before and after."""
    made = iter(await convert([item for event in events for item in (event.item, event.previous) if item is not None]))
    return [Event(event.revision, next(made), next(made) if event.previous is not None else None, event.deleted) for event in events]


def _seen(cacher: Cacher, event: Event, plan: WatchPlan) -> Delivery | None:
    if not _is_inside(event, plan):
        return None
    if not plan.selector:
        kind = "DELETED" if event.deleted else "MODIFIED" if event.previous is not None else "ADDED"
        return Delivery(kind, event.item, event.revision, event)
    was = event.previous is not None and plan.selector.matches(event.previous.obj)
    if not event.deleted and plan.selector.matches(event.item.obj):
        return Delivery("MODIFIED" if was else "ADDED", event.item, event.revision, event)
    if not was or event.previous is None:
        return None
    if event.deleted:
        return Delivery("DELETED", event.item, event.revision, event)
    return Delivery("DELETED", cacher.as_of(event.previous, event.revision), event.revision)
