"""Bytes within a call, as a stream: a message each for what one write has.

Two tasks carry them over one end of a socket pair, so that HTTP/2 within the call is HTTP/2 like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Call
from atoll.http import Disconnected, Duplex
from atoll.http.stream import stream_pair


@asynccontextmanager
async def tunnel(call: Call) -> AsyncIterator[Duplex]:
    """The stream, until the block ends."""
    inner, outer = await stream_pair()
    tasks = [asyncio.create_task(work, name="tunnel in a call") for work in (_inwards(call, outer), _outwards(outer, call))]
    try:
        yield inner
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        inner.close()
        outer.close()


async def _inwards(call: Call, stream: Duplex) -> None:
    try:
        while (message := await call.receive(messages.BytesMessage)) is not None:
            stream.write(message.data)
            await stream.drain()
        stream.write_eof()
    except Disconnected:
        stream.close()


async def _outwards(stream: Duplex, call: Call) -> None:
    while data := await stream.read():
        await call.send(messages.BytesMessage(data=data))
