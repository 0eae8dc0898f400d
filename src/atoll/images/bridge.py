"""Bytes across the line between the loop and a worker's thread, one batch at a time: back-pressure both ways, nothing queued."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import TypeVar

T = TypeVar("T")
_END = object()
BATCH = 1 << 18  # bytes handed over at a time, at least: a step to the loop and back costs as much as unpacking what a socket gives


async def consume(chunks: AsyncIterator[bytes], work: Callable[[Iterator[bytes]], T]) -> T:
    """Runs `work` in a thread over the chunks the loop receives. Cancelled, it stops the thread at its next chunk and waits for it."""
    loop = asyncio.get_running_loop()
    stopped = threading.Event()
    waiting: list[Future[bytes | None]] = []

    async def step() -> bytes | None:
        batch = bytearray()
        async for chunk in chunks:
            if not batch and len(chunk) >= BATCH:
                return chunk
            batch += chunk
            if len(batch) >= BATCH:
                break
        return bytes(batch) or None

    def blocking() -> Iterator[bytes]:
        while not stopped.is_set():
            waiting[:] = [asyncio.run_coroutine_threadsafe(step(), loop)]
            chunk = waiting[0].result()
            if chunk is None:
                return
            yield chunk
        raise CancelledError

    task = asyncio.ensure_future(asyncio.to_thread(lambda: work(blocking())))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stopped.set()
        while not task.done():  # the thread may ask once more between our look and its own
            for future in waiting:
                future.cancel()
            await asyncio.wait([task], timeout=0.05)
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller hears of
        raise


async def produce(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of a blocking iterator, each made in a thread. A generator is closed when its reader goes away."""
    try:
        while (chunk := await asyncio.to_thread(next, chunks, _END)) is not _END:
            assert isinstance(chunk, bytes)
            yield chunk
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
