"""When nobody has asked the node for anything for a moment, it gives back the memory that the last work needed.

No timer runs while nothing happens, and a request costs a look at the clock. At most one round in ten seconds: a client that polls shall
not keep a processor busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

PAUSE_S = 1.0
INTERVAL_S = 10.0

log = logging.getLogger(__name__)


class Leisure:
    def __init__(self, work: Callable[[], None], pause_s: float = PAUSE_S, interval_s: float = INTERVAL_S) -> None:
        """`work` is done in a thread."""
        self._work = work
        self._pause = pause_s
        self._interval = interval_s
        self._loop = asyncio.get_running_loop()
        self._busy_until = self._not_before = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def note(self) -> None:
        """Something has been done."""
        self._busy_until = self._loop.time()
        if self._timer is None and not self._is_closed:  # requests may end after the close
            self._timer = self._loop.call_later(self._pause, self._look)

    def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        due = max(self._busy_until + self._pause, self._not_before)
        if now < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        self._timer = None
        self._not_before = now + self._interval
        self._loop.run_in_executor(None, self._do)

    def _do(self) -> None:
        try:
            self._work()
        except OSError as error:
            log.warning("memory cannot be given back: %s", error)
