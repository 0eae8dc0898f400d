"""A work queue of keys: each key at most once in the queue and at most once in work, with delays and backoff.

The discipline of client-go: a key added while a worker holds it is remembered and queued again when the worker is done, so no change is
lost and no two workers meet on one object. Its length is bounded by the number of distinct keys. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
from collections import deque

BASE_DELAY_S = 0.005  # client-go's ItemExponentialFailureRateLimiter
MAX_DELAY_S = 1000.0


class WorkQueue:
    """`get` a key, work, then `done(key)`; `forget(key)` after success, `add_rate_limited(key)` after failure."""

    def __init__(self, *, base_delay: float = BASE_DELAY_S, max_delay: float = MAX_DELAY_S) -> None:
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._working: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that a worker could take now."""
        return len(self._ready)

    @property
    def is_idle(self) -> bool:
        """Nothing queued and nothing in work; delayed keys may still be waiting for their time."""
        return not self._ready and not self._working

    def add(self, key: str) -> None:
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._push(key)

    def add_after(self, key: str, delay: float) -> None:
        """Adds the key in `delay` seconds; of several delays the earliest stands."""
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    def add_rate_limited(self, key: str) -> None:
        """Adds the key after a delay that doubles with each failure since the last `forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(self._base_delay * 2.0 ** min(failures, 60), self._max_delay))

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> str:
        """The next key, which is then in work until `done`."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready:
                    self._wake()  # the wake-up was ours and we are leaving: pass it on
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)

    def close(self) -> None:
        """Cancels delayed additions."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _push(self, key: str) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
