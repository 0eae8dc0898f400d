"""Work that must not be left half done when whoever asked goes away: the one who waits for it goes on only after it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
    """WORK in a thread. Cancelled, it calls STOP and waits: the thread may be writing where the canceller is about to clean up."""
    return await to_its_end(asyncio.to_thread(work), stop)


async def to_its_end(work: Coroutine[Any, Any, T], stop: Callable[[], None] | None = None) -> T:
    """Like await, but a cancellation, however often it comes, is delivered only when WORK is done."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
            if stop is not None:
                stop()
    if cancelled:
        if not task.cancelled():
            task.exception()  # seen; the cancellation is what the caller hears of
        raise asyncio.CancelledError
    return task.result()
