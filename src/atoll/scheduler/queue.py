"""Pods that want a node, by priority and then by age.

A pod that fits nowhere is parked with the names of the plugins that said no; `wake` brings back those whose plugins the event could
satisfy, after a backoff of one to ten seconds that doubles with each attempt. Nothing polls; only as a net under missed causes a parked
pod comes back by itself after five minutes, as upstream.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from atoll.client.objects import Object, key_of
from atoll.scheduler.requests import priority_of

BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 10.0
PARKED_MAX_S = 300.0


@dataclass(slots=True)
class QueuedPod:
    """One pod that waits; `pod` is its latest version."""

    pod: Object
    since: float
    attempts: int = 0
    last_attempt: float = 0.0
    plugins: frozenset[str] = frozenset()
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    is_active: bool = False


class SchedulingQueue:
    """`pop` hands a pod out; then `fail` parks it, `retry` lets it try again after its backoff, and `remove` forgets it."""

    def __init__(self) -> None:
        self._entries: dict[str, QueuedPod] = {}
        self._heap: list[tuple[int, float, int, str]] = []
        self._order = itertools.count()
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, pod: Object) -> None:
        """A pod that is new, or changed so that it may fit now."""
        key = key_of(pod)
        entry = self._entries.get(key)
        if entry is None or entry.pod["metadata"].get("uid") != pod["metadata"].get("uid"):
            self.remove(key)
            entry = self._entries[key] = QueuedPod(pod, asyncio.get_running_loop().time())
        entry.pod = pod
        self._requeue(entry)

    def refresh(self, pod: Object) -> None:
        """A change that matters to nobody here."""
        entry = self._entries.get(key_of(pod))
        if entry is not None:
            entry.pod = pod

    def remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            _stop_timer(entry)

    def close(self) -> None:
        for key in list(self._entries):
            self.remove(key)

    async def pop(self) -> QueuedPod:
        """The pod with the highest priority, the oldest of these."""
        while True:
            while self._heap:
                *_, key = heapq.heappop(self._heap)
                entry = self._entries.get(key)
                if entry is not None and entry.is_active:
                    entry.is_active = False
                    entry.attempts += 1
                    entry.last_attempt = asyncio.get_running_loop().time()
                    return entry
            self._ready.clear()
            await self._ready.wait()

    def fail(self, entry: QueuedPod, plugins: set[str]) -> None:
        """Parks the pod until something happens that concerns one of the plugins; with none, until it changes itself."""
        if self._entries.get(key_of(entry.pod)) is entry:
            entry.plugins = frozenset(plugins)
            if plugins:
                self._after(entry, PARKED_MAX_S)

    def retry(self, entry: QueuedPod) -> None:
        """After an error that is not the pod's own."""
        if self._entries.get(key_of(entry.pod)) is entry:
            self._requeue(entry)

    def wake(self, plugins: frozenset[str] | None) -> None:
        """Something changed that could satisfy these plugins; None is all."""
        for entry in self._entries.values():
            if entry.plugins and (plugins is None or entry.plugins & plugins):
                self._requeue(entry)

    def _requeue(self, entry: QueuedPod) -> None:
        entry.plugins = frozenset()
        if entry.is_active:
            return
        wait = 0.0
        if entry.attempts:
            backoff = min(BACKOFF_BASE_S * 2.0 ** min(entry.attempts - 1, 10), BACKOFF_MAX_S)
            wait = entry.last_attempt + backoff - asyncio.get_running_loop().time()
        if wait > 0:
            self._after(entry, wait)
        else:
            self._activate(entry)

    def _after(self, entry: QueuedPod, delay: float) -> None:
        _stop_timer(entry)
        entry.timer = asyncio.get_running_loop().call_later(delay, self._activate, entry)

    def _activate(self, entry: QueuedPod) -> None:
        _stop_timer(entry)
        entry.plugins = frozenset()
        if not entry.is_active:
            entry.is_active = True
            heapq.heappush(self._heap, (-priority_of(entry.pod), entry.since, next(self._order), key_of(entry.pod)))
            self._ready.set()


def _stop_timer(entry: QueuedPod) -> None:
    if entry.timer is not None:
        entry.timer.cancel()
        entry.timer = None
