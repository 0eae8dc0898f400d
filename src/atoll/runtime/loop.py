"""The keeper's event loop: epoll, one callback for each descriptor, timers, child deaths and signals through a wake-up pipe.

Not asyncio: that costs 40 ms of start and megabytes that every container's first fork would carry.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import signal
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
NOTHING = 0  # hang-ups and errors are told all the same
Callback = Callable[[int], None]  # takes the epoll event mask


class Loop:
    def __init__(self, signals: dict[int, Callable[[], None]]) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []  # a heap: when, in which order they were made, what
        self._timers_made = 0
        self._stopping = False
        self._signals = signals
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)  # the wake-up pipe does the work
        self.add(self._wake_read, READ, self._on_signal)

    def add(self, fd: int, events: int, callback: Callback) -> None:
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Before the descriptor is closed. Events already fetched for it are dropped."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call once, in `seconds`."""
        self._timers_made += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timers_made, callback))

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        while not self._stopping:
            for fd, events in self._epoll.poll(self._next_timer()):
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)
            if self._timers:
                self._run_timers()

    def _next_timer(self) -> float | None:
        """Seconds until it, None where there is none."""
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _on_signal(self, _: int) -> None:
        numbers: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while received := os.read(self._wake_read, 4096):
                numbers.update(received)
        for number in sorted(numbers):
            if number in self._signals:
                self._signals[number]()
