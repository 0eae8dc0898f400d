"""Long work told as it goes: JSON lines of progress, the error as the last of them.

Docker's rule decides the status: work that fails before it has said anything is an ordinary error response; afterwards the error travels in
the stream, since the head has gone. A client that hangs up ends the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from atoll.errors import AtollError
from atoll.http import Request
from atoll.images import Progress

log = logging.getLogger(__name__)

WAITING_MAX = 256  # messages a client may be behind before `Feed.ready` holds the work up
JSON_LINES = (("Content-Type", "application/json"),)


def line(message: dict[str, Any]) -> bytes:
    return orjson.dumps(message) + b"\r\n"


def error_line(error: BaseException) -> bytes:
    text = str(error) or type(error).__name__
    return line({"errorDetail": {"message": text}, "error": text})


class Feed:
    """A Progress, and for work that has no end of words: `ready` returns when the client has read most of what was said."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __call__(self, message: dict[str, Any]) -> None:
        self._messages.put_nowait(message)
        if self._messages.qsize() >= WAITING_MAX:
            self._has_room.clear()

    async def ready(self) -> None:
        await self._has_room.wait()

    def end(self) -> None:
        self._messages.put_nowait(None)

    async def get(self) -> dict[str, Any] | None:
        """The next message; None after the last."""
        message = await self._messages.get()
        if self._messages.qsize() < WAITING_MAX:
            self._has_room.set()
        return message


Work = Callable[[Feed], Awaitable[None]]


async def stream_progress(request: Request, work: Work) -> None:
    """Runs `work` with a Progress that the client sees. Raises what it raises before its first word."""
    feed = Feed()
    task = asyncio.ensure_future(work(feed))
    task.add_done_callback(lambda _: feed.end())
    gone = asyncio.create_task(request.wait_disconnected(), name="client of a long answer")
    gone.add_done_callback(lambda _: task.cancel())
    try:
        first = await feed.get()
        if first is None:
            await task
        writer = request.start(200, JSON_LINES)
        message = first
        while message is not None:
            writer.write(line(message))
            await writer.drain()
            message = await feed.get()
        if error := task.exception():
            if not isinstance(error, AtollError):
                log.error("%s %s failed", request.method, request.path, exc_info=error)
            writer.write(error_line(error))
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def stream_messages(request: Request, messages: AsyncIterator[dict[str, Any]]) -> None:
    """The same for work that is an iterator of messages."""

    async def work(progress: Progress) -> None:
        async for message in messages:
            progress(message)

    await stream_progress(request, work)
