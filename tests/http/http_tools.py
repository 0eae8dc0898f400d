"""What the tests of atoll.http share: a server on a socket, and raw bytes to it."""

from __future__ import annotations

import asyncio
import contextlib

from atoll.http import Limits, Server

HOST = b"Host: x\r\n"


@contextlib.asynccontextmanager
async def serving(handler, **options):
    """A server on a loopback port; its tasks are checked to be gone afterwards."""
    before = asyncio.all_tasks()
    limits = options.pop("limits", None) or Limits()
    ssl = options.pop("ssl", None)
    server = Server(handler, limits, **options)
    port = await server.start_tcp("127.0.0.1", 0, ssl)
    try:
        yield port
    finally:
        await server.close(grace=1.0)
        assert not server.connections
    if left := asyncio.all_tasks() - before:
        _, left = await asyncio.wait(left, timeout=1)
    assert not left


async def exchange(port: int, data: bytes, *, eof: bool = False) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                return await reader.read()
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def statuses(answer: bytes) -> list[int]:
    """The status of each response in the bytes; bodies must not hold status lines."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
