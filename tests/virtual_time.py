"""An event loop whose clock jumps to the next timer when nothing else is to do: hours of backoff in microseconds, and no sleeping tests."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
STUCK_S = 5.0  # nothing scheduled and nothing ready for so long: the test hangs


class _Selector(selectors.DefaultSelector):
    now = 1000.0

    def select(self, timeout=None):
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            ready = super().select(STUCK_S)
            if not ready:
                raise RuntimeError("virtual time stands still: every task waits for something that no timer brings")
            return ready
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self):
        return self._virtual.now

    def run_in_executor(self, executor, func, *args):
        """At once: a thread would run in real time while the virtual clock leaps ahead."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def clock() -> float:
    """Wall clock in seconds, tied to the running virtual loop."""
    return EPOCH + asyncio.get_running_loop().time() - 1000.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """asyncio.run on virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)
