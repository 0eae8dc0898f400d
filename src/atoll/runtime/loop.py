"""The keeper's event loop: epoll, one callback for each descriptor, child deaths and signals through a wake-up pipe.

Not asyncio: that costs 40 ms of start and megabytes that every container's first fork would carry.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
NOTHING = 0  # hang-ups and errors are told all the same
Callback = Callable[[int], None]  # takes the epoll event mask


class Loop:
    def __init__(self, signals: dict[int, Callable[[], None]]) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
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

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        while not self._stopping:
            for fd, events in self._epoll.poll():
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)

    def _on_signal(self, _: int) -> None:
        numbers: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while received := os.read(self._wake_read, 4096):
                numbers.update(received)
        for number in sorted(numbers):
            if number in self._signals:
                self._signals[number]()
