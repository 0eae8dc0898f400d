"""Events: what changed, told to whoever listens, with the last ones kept for `since`.

One ring holds the latest events; a subscriber has a bounded queue. One that does not read fast enough is cut off rather than waited for, as
its queue's end tells it. Events are the dicts of GET /events: Type, Action, Actor{ID, Attributes}, time, timeNano, and the old fields
status, id and from.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from atoll.engine.filters import Filters

KEPT = 1024  # events; Docker keeps 256
QUEUE_MAX = 4096  # events a subscriber may lag behind
FILTERS = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
]

Event = dict[str, Any]


class Subscription:
    """An async iterator of events. `aclose` (or the end) takes it off."""

    def __init__(
        self, queue: asyncio.Queue[Event | None], until: int | None, clock: Callable[[], int], forget: Callable[[], object]
    ) -> None:
        self._queue = queue
        self._until = until
        self._clock = clock
        self._forget = forget

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        event = await self._next()
        if event is None:
            self._forget()
            raise StopAsyncIteration
        return event

    async def _next(self) -> Event | None:
        if self._until is None or not self._queue.empty():
            return await self._queue.get()
        left = (self._until - self._clock()) / 1e9
        try:
            return await asyncio.wait_for(self._queue.get(), left) if left > 0 else None
        except TimeoutError:
            return None

    async def aclose(self) -> None:
        self._forget()


class Events:
    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._subscribers: dict[asyncio.Queue[Event | None], Filters] = {}
        self._last = 0

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str] | None = None) -> Event:
        """Tells of `action` on `actor` (a full id, or a name where Docker has none). Never waits."""
        now = self._last = max(self._clock(), self._last + 1)  # strictly rising, so that `since` can resume
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": dict(attributes or {})},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        if kind in {"container", "image"}:
            event = {"status": action, "id": actor, **event}
            if kind == "container":
                event["from"] = (attributes or {}).get("image", "")
        self._kept.append(event)
        for queue, filters in list(self._subscribers.items()):
            if matches(event, filters):
                if queue.qsize() >= QUEUE_MAX:
                    del self._subscribers[queue]
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(event)
        return event

    def subscribe(
        self, filters: Filters | Mapping[str, Iterable[str]] | None = None, since: int | None = None, until: int | None = None
    ) -> Subscription:
        """Events that match, from this call on: first the kept ones from `since` (nanoseconds; None: none of them), then new ones.

        They end at `until`, or when the subscriber lags too far behind. Close the subscription.
        """
        wanted = Filters.of(filters)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        for event in self._kept:
            in_time = since is not None and event["timeNano"] >= since and (until is None or event["timeNano"] <= until)
            if in_time and matches(event, wanted):
                queue.put_nowait(event)
        self._subscribers[queue] = wanted
        return Subscription(queue, until, self._clock, lambda: self._subscribers.pop(queue, None))

    @property
    def listeners(self) -> int:
        return len(self._subscribers)

    def close(self) -> None:
        """Ends every subscription, so that open /events requests do not hold up the end of the daemon."""
        for queue in self._subscribers:
            queue.put_nowait(None)
        self._subscribers.clear()


def matches(event: Event, filters: Filters) -> bool:
    if not filters:
        return True
    actor, kind = event["Actor"], event["Type"]
    attributes = actor["Attributes"]
    # "health_status: healthy" and "exec_create: sh" are found by what stands before the colon, too.
    action = event["Action"]
    if not filters.exact("event", action, action.partition(":")[0]):
        return False
    if not filters.exact("type", kind) or not filters.exact("scope", event["scope"]) or not filters.labels(attributes):
        return False
    for subject in ("container", "image", "network", "volume", "daemon", "plugin"):
        if subject in filters and not _is_subject(subject, kind, actor["ID"], attributes, filters):
            return False
    return True


def _is_subject(subject: str, kind: str, actor: str, attributes: Mapping[str, str], filters: Filters) -> bool:
    if subject == "image" and kind == "container":
        names = [attributes.get("image", "")]
    elif subject == kind:
        names = [actor, attributes.get("name", "")]
    else:
        return False
    untagged = [name.rpartition(":")[0] for name in names if ":" in name and not name.startswith("sha256:")]
    wanted = filters.get(subject)
    return any(name in wanted for name in names + untagged) or any(kind == subject and actor.startswith(value) for value in wanted if value)
