"""A connection that has become a process's stdio (Docker's "hijacking")."""

from __future__ import annotations

import asyncio
import contextlib

from atoll.engine.streams import DetachKeys, Session, frame
from atoll.http import Disconnected, Duplex, Stream

LOST = b"\r\natoll: this session was lost: the keeper that carried it ended. The container runs on; attach or exec again.\r\n"
HEAD_STEP_S = 0.001
HEAD_TRIES = 100


async def head_read(stream: Stream) -> None:
    """Waits, within bounds, until the client has read the response's head.

    docker-py reads the head through a buffer and what follows past it: output that arrives along with the head is lost to it. Docker is
    slow enough not to meet this; we are not.
    """
    for _ in range(HEAD_TRIES):
        if not stream.unread:
            return
        await asyncio.sleep(HEAD_STEP_S)


async def serve(stream: Duplex, session: Session, *, tty: bool, keys: DetachKeys | None) -> bool:
    """Carries bytes both ways until the process's output ends, the client goes, or it types the detach keys (then True).

    Without a terminal output is framed. The client's end of input is the process's.
    """
    output = asyncio.create_task(_carry_out(stream, session, tty=tty), name="output of an attached process")
    typed = asyncio.create_task(_carry_in(stream, session, keys if tty else None), name="input of an attached process")
    gone = asyncio.create_task(stream.wait_closed(), name="client of an attached process")
    try:
        await asyncio.wait((output, typed), return_when=asyncio.FIRST_COMPLETED)
        if typed.done() and not typed.cancelled():
            if typed.exception() is not None:
                return False  # the client broke off
            if typed.result():
                return True
        await asyncio.wait((output, gone), return_when=asyncio.FIRST_COMPLETED)
        return False
    finally:
        for task in (output, typed, gone):
            task.cancel()
        await asyncio.gather(output, typed, gone, return_exceptions=True)


async def _carry_out(stream: Duplex, session: Session, *, tty: bool) -> None:
    with contextlib.suppress(Disconnected):
        async for name, data in session.output():
            if session.is_mute:
                continue
            stream.write(data if tty else frame(name, data))
            await stream.drain()
        if session.attach.is_lost:
            stream.write(LOST if tty else frame("stderr", LOST))
            await stream.drain()


async def _carry_in(stream: Duplex, session: Session, keys: DetachKeys | None) -> bool:
    """True when the detach keys were typed."""
    while data := await stream.read():
        if keys is not None:
            data, detached = keys.feed(data)
            if detached:
                return True
        if data:
            await session.send(data)
    session.close_input()
    return False
