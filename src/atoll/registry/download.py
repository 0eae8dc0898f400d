"""A file's bytes as a response body: read in a thread, one piece ahead of the client, three pieces in memory at most."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from atoll.registry.ranges import Part

PIECE = 1 << 20


async def read(path: Path, part: Part) -> AsyncIterator[bytes]:
    """Raises OSError where the file ends too soon: the connection must break then, not the client's trust in the length."""
    loop = asyncio.get_running_loop()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    ahead: asyncio.Future[bytes] | None = None
    at, left = part
    try:
        os.posix_fadvise(fd, at, left, os.POSIX_FADV_SEQUENTIAL)
        while left:
            data = await (ahead or loop.run_in_executor(None, os.pread, fd, min(PIECE, left), at))
            if not data:
                raise OSError(f"{path} is shorter than it was")
            at += len(data)
            left -= len(data)
            ahead = loop.run_in_executor(None, os.pread, fd, min(PIECE, left), at) if left else None
            yield data
    finally:
        if ahead is not None:
            ahead.add_done_callback(lambda _: os.close(fd))  # not under the thread that reads from it
        else:
            os.close(fd)
