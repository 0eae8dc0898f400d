"""Attaching to a container: the connection itself becomes its stdio."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from atoll.engine.containers import logs
from atoll.engine.hijack import head_read, serve
from atoll.engine.routes.containers import hijacked
from atoll.engine.streams import DetachKeys, frames, parse_keys
from atoll.errors import Conflict
from atoll.http import Duplex, Request, Router

if TYPE_CHECKING:
    from atoll.engine.containers.record import Container
    from atoll.engine.engine import Engine


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    async def attach(self, request: Request, ref: str) -> None:
        query = request.query
        container = self._containers.get(ref)
        keys = query.get("detachKeys") or ""
        if keys:
            parse_keys(keys)
        await request.body()
        wants_logs, wants_stream = query.flag("logs"), query.flag("stream")
        out, err = query.flag("stdout"), query.flag("stderr")
        session = None
        if wants_stream:
            session = await self._containers.attach(ref, stdin=query.flag("stdin"), stdout=out, stderr=err)
        try:
            stream = await hijacked(request, tty=container.tty)
            await head_read(stream)
            if wants_logs and (out or err):
                await self._replay(container, stream, logs.Selection(out, err), tty=container.tty)
            if session is not None and await serve(stream, session, tty=container.tty, keys=DetachKeys(keys)):
                self._engine.services.container_event(container, "detach")
        finally:
            if session is not None:
                self._containers.detach(container.id, session)

    async def websocket(self, request: Request, ref: str) -> None:
        query = request.query
        container = self._containers.get(ref)
        if not query.flag("stream"):
            raise Conflict("attach by websocket needs stream=1")
        keys = query.get("detachKeys") or ""
        if keys:
            parse_keys(keys)
        out, err = query.flag("stdout"), query.flag("stderr")
        session = await self._containers.attach(ref, stdin=query.flag("stdin"), stdout=out, stderr=err)
        from atoll.http.websocket import accept

        try:
            stream = (await accept(request, ["binary"])).as_stream()
            with contextlib.suppress(ConnectionError):
                # Raw bytes both ways, as Docker does here with and without a terminal.
                if query.flag("logs") and (out or err):
                    await self._replay(container, stream, logs.Selection(out, err), tty=True)
                if await serve(stream, session, tty=True, keys=DetachKeys(keys) if container.tty else None):
                    self._engine.services.container_event(container, "detach")
        finally:
            self._containers.detach(container.id, session)

    async def _replay(self, container: Container, stream: Duplex, selection: logs.Selection, *, tty: bool) -> None:
        """What was logged before; with a terminal, or on a WebSocket, without frames."""
        async for batch in self._containers.log_batches(container, selection, follow=False):
            stream.write(b"".join([data for _, data in batch]) if tty else frames(batch))
            await stream.drain()


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("POST", "/containers/{ref}/attach", routes.attach)
    router.add("GET", "/containers/{ref}/attach/ws", routes.websocket)
