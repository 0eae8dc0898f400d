"""The registry as a handler for atoll.http, and as a process that serves one root until it is told to go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from atoll import process
from atoll.errors import InvalidInput
from atoll.http import Limits, Request, Response, Server
from atoll.registry.errors import API_VERSION, Code, Refused, on_error
from atoll.registry.htpasswd import Htpasswd
from atoll.registry.routes import table
from atoll.registry.store import Store
from atoll.registry.uploads import EXPIRY_S, STALL_S, Uploads

log = logging.getLogger("atoll.registry")

THREADS = 32  # each waits for a disk or a hash most of its time
EXPIRE_INTERVAL_S = 600.0
CLOSE_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What `atoll registry serve` was told. Port 0 takes a free one; certificate and key go together, in PEM.

    `beside`: the engine's blobs, which the registry shares where it has the same content.
    """

    root: Path
    beside: Path | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    htpasswd: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    blob_max: int | None = None
    upload_expiry_s: float = EXPIRY_S


class RegistryApp:
    """The handler: who asks, what for, and one line of log for what was changed."""

    def __init__(self, store: Store, uploads: Uploads, users: Htpasswd | None = None) -> None:
        self._routes = table(store, uploads)
        self._users = users

    async def __call__(self, request: Request) -> Response | None:
        user = await self._users.check(request.headers.get("authorization")) if self._users else "-"
        if any("/" in segment for segment in request.segments):
            raise Refused(Code.NAME_INVALID, "an encoded slash is no part of a name")
        response = await self._routes(request)
        assert response is not None
        response.headers = (*API_VERSION, *response.headers)
        if request.method not in ("GET", "HEAD"):
            log.info("%s %s %s %s %d", request.peer.address, user, request.method, request.path, response.status)
        return response


async def serve(settings: Settings, ready: Callable[[int], None], stop: asyncio.Event | None = None) -> None:
    """Serves until TERM, INT or STOP; `ready` gets the port once it answers.

    Raises InUse for a port or a root that another server has, InvalidInput for what cannot be used of the files named.
    """
    stop = stop or asyncio.Event()
    process.on_end(stop.set)
    context = _tls(settings)
    users = Htpasswd(settings.htpasswd) if settings.htpasswd else None
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(process.sole(settings.root / "lock", "registry"))
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "registry"))
        store = Store(settings.root, beside=settings.beside)
        stack.callback(store.close)
        store.open()
        uploads = Uploads(store.content, blob_max=settings.blob_max, expiry_s=settings.upload_expiry_s)
        server = Server(RegistryApp(store, uploads, users), Limits(stall=STALL_S), on_error)
        stack.push_async_callback(server.close, CLOSE_GRACE_S)
        ready(await server.start_tcp(settings.host, settings.port, context))
        expiry = asyncio.create_task(_expire(uploads), name="upload expiry")
        stack.push_async_callback(_end, expiry)
        await stop.wait()


async def _expire(uploads: Uploads) -> None:
    while True:
        try:
            if count := uploads.expire():
                log.info("%d uploads expired", count)
        except OSError:
            log.exception("stale uploads could not be removed")
        await asyncio.sleep(EXPIRE_INTERVAL_S)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_cert and not settings.tls_key:
        return None
    if not settings.tls_cert or not settings.tls_key:
        raise InvalidInput("TLS needs both, a certificate and its key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInput(f"the certificate {settings.tls_cert} and key {settings.tls_key} cannot be used: {error}") from error
    return context
