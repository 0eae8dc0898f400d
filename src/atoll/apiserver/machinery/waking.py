"""Who waits for the next change of a kind, and when they are woken: one by one at once, many in turns."""

from __future__ import annotations

import asyncio

UNPACED = 10  # so many watchers are woken at each change
TELLING_S = 0.0003  # over twice what waking one watcher and writing to it takes
BURST_WAIT_MAX_S = 0.05


class Waiters:
    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self._woken = 0.0  # when, by the loop's clock
        self._turn: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, seconds: float) -> None:
        """Until woken, or so many seconds."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.add(waiter)
        timer = loop.call_later(seconds, end, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiting.discard(waiter)

    def wake(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            end(waiter)

    def wake_in_turn(self) -> None:
        """Wake at once after a pause. In a burst, wake so late that what many watchers cost leaves time for others: each then takes
        several changes in one piece.
        """
        if self._turn is not None:
            return
        loop, count = asyncio.get_running_loop(), len(self._waiting)
        now = loop.time()
        due = self._woken + min(count * TELLING_S, BURST_WAIT_MAX_S) if count > UNPACED else now
        if due > now:
            self._turn = loop.call_at(due, self._wake_late)
        else:
            self._woken = now
            self.wake()

    def _wake_late(self) -> None:
        self._woken = asyncio.get_running_loop().time()
        self.wake()


def end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
