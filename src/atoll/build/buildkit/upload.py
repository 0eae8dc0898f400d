"""A tar that the client has on its standard input (moby.upload.v1.Upload): its build context is then a URL that only the session knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from atoll.build.buildkit import messages
from atoll.build.buildkit.sessions import Session

METHOD = "/moby.upload.v1.Upload/Pull"
HOST = "buildkit-session"


def is_upload(url: str) -> bool:
    return urlsplit(url).hostname == HOST


async def pulled(session: Session, url: str) -> AsyncIterator[bytes]:
    """The bytes behind URL. Raises RpcError, Disconnected."""
    path = urlsplit(url).path
    async with session.channel.call(METHOD, [("urlpath", path), ("urlhost", HOST)]) as call:
        while (message := await call.receive(messages.BytesMessage)) is not None:
            yield message.data
