"""A container's log as `kubectl logs` asks for it: follow, tail, since, timestamps, a bound in bytes."""

from __future__ import annotations

import asyncio
import calendar
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from atoll.engine import Engine
from atoll.engine.containers.logs import Selection
from atoll.errors import InvalidInput
from atoll.http import Query
from atoll.kernel.inotify import IN_MODIFY, Watch

NS = 1_000_000_000
BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since_ns: int | None = None
    limit: int | None = None
    stream: str = ""  # "Stdout", "Stderr", else both

    @classmethod
    def parse(cls, query: Query) -> LogOptions:
        """PodLogOptions from a query. Raises InvalidInput naming what is wrong."""
        since = None
        seconds = _number(query, "sinceSeconds", least=1)
        if seconds is not None:
            since = time.time_ns() - seconds * NS
        elif query.get("sinceTime"):
            since = _moment(query.get("sinceTime") or "")
        return cls(
            follow=query.flag("follow"),
            previous=query.flag("previous"),
            timestamps=query.flag("timestamps"),
            tail=_number(query, "tailLines", least=0),
            since_ns=since,
            limit=_number(query, "limitBytes", least=1),
            stream=query.get("stream") or "",
        )


def _number(query: Query, name: str, *, least: int) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not text.isdigit() or int(text) < least:
        raise InvalidInput(f"invalid {name} {text!r}: it must be a whole number from {least} on")
    return int(text)


def _moment(text: str) -> int:
    """RFC 3339 to nanoseconds."""
    try:
        whole, _, rest = text.partition(".")
        base = calendar.timegm(time.strptime(whole.rstrip("Z")[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError as error:
        raise InvalidInput(f"invalid sinceTime {text!r}: it must be a time as 2026-01-02T03:04:05Z") from error
    digits = "".join(char for char in rest if char.isdigit())[:9].ljust(9, "0")
    return base * NS + int(digits)


def container_log(engine: Engine, container_id: str, options: LogOptions) -> AsyncIterator[bytes]:
    """Ends with the container where it follows."""
    selection = Selection(
        stdout=options.stream != "Stderr",
        stderr=options.stream != "Stdout",
        since_ns=options.since_ns,
        tail=options.tail,
        timestamps=options.timestamps,
    )
    batches = engine.containers.log_batches(engine.containers.get(container_id), selection, follow=options.follow)

    async def pieces() -> AsyncIterator[bytes]:
        async for batch in batches:
            yield b"".join(data for _, data in batch)

    return limited(pieces(), options.limit)


async def limited(pieces: AsyncIterator[bytes], limit: int | None) -> AsyncIterator[bytes]:
    left = limit
    async for piece in pieces:
        if left is None:
            yield piece
            continue
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


def file_log(path: Path, options: LogOptions) -> AsyncIterator[bytes]:
    """A log that a process of ours writes by itself: lines as they are. Since and timestamps say nothing about it."""
    return limited(_lines(path, options.tail, follow=options.follow), options.limit)


async def _lines(path: Path, tail: int | None, *, follow: bool) -> AsyncIterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        if tail is not None:
            file.seek(_tail_start(path, tail))
        while data := file.read(BLOCK):
            yield data
            await asyncio.sleep(0)
        if not follow:
            return
        watch = Watch()
        grown = asyncio.Event()

        def fired() -> None:
            watch.drain()
            grown.set()

        loop = asyncio.get_running_loop()
        try:
            watch.watch(str(path), IN_MODIFY)
            loop.add_reader(watch.fileno(), fired)
            while True:
                while data := file.read(BLOCK):
                    yield data
                await grown.wait()
                grown.clear()
        finally:
            loop.remove_reader(watch.fileno())
            watch.close()


def _tail_start(path: Path, lines: int) -> int:
    """Where the last `lines` lines begin."""
    with path.open("rb") as file:
        end = position = file.seek(0, 2)
        found, data = 0, b""
        while position > 0 and found <= lines:
            step = min(BLOCK, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
            found = data.count(b"\n")
        if lines == 0:
            return end
        parts = data.splitlines(keepends=True)[-lines:]
        return end - sum(len(part) for part in parts)
