"""Contexts that the client has on its standard input: its build then names no directory, but an upload.

Today's clients serve it on their session (moby.upload.v1.Upload) and name a URL that only the session knows. Docker's own, before buildx,
posted it to /build a second time, under the first request's id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from atoll.build.buildkit import messages
from atoll.build.buildkit.sessions import Session
from atoll.errors import NotFound

METHOD = "/moby.upload.v1.Upload/Pull"
HOST = "buildkit-session"
POSTED = "upload-request"
POSTED_ID = f"{POSTED}:"
WAIT_S = 5.0


def is_upload(url: str) -> bool:
    return urlsplit(url).hostname == HOST


async def pulled(session: Session, url: str) -> AsyncIterator[bytes]:
    """The bytes behind URL. Raises RpcError, Disconnected."""
    path = urlsplit(url).path
    async with session.channel.call(METHOD, [("urlpath", path), ("urlhost", HOST)]) as call:
        while (message := await call.receive(messages.BytesMessage)) is not None:
            yield message.data


class Posted:
    """Uploads that were posted and wait for their builds, by the builds' ids."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[AsyncIterator[bytes], asyncio.Event]] = {}
        self._changed = asyncio.Condition()

    async def offer(self, ref: str, chunks: AsyncIterator[bytes]) -> None:
        """Returns when the build has read it. Raises NotFound where none does in time."""
        begun, done = asyncio.Event(), asyncio.Event()

        async def reading() -> AsyncIterator[bytes]:
            begun.set()
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                done.set()

        async with self._changed:
            self._waiting[ref] = (reading(), done)
            self._changed.notify_all()
        try:
            async with asyncio.timeout(WAIT_S):
                await begun.wait()
            await done.wait()
        except TimeoutError:
            raise NotFound(f"no build {ref} has asked for an upload") from None
        finally:
            self._waiting.pop(ref, None)

    @asynccontextmanager
    async def taken(self, ref: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The upload of a build. Raises NotFound where none comes in time."""
        try:
            async with asyncio.timeout(WAIT_S), self._changed:
                await self._changed.wait_for(lambda: ref in self._waiting)
        except TimeoutError:
            raise NotFound(f"the client has not sent the context of build {ref}") from None
        chunks, done = self._waiting.pop(ref)
        try:
            yield chunks
        finally:
            done.set()
