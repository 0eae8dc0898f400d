"""Exec: further processes in a running container."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from atoll.engine.edge import integer, read_json
from atoll.engine.hijack import head_read, serve
from atoll.engine.routes.containers import hijacked
from atoll.engine.streams import DetachKeys, frame
from atoll.errors import AtollError
from atoll.http import Disconnected, Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._execs = engine.exec

    async def create(self, request: Request, ref: str) -> Response:
        return json_response({"Id": await self._execs.create(ref, await read_json(request))}, 201)

    async def start(self, request: Request, ref: str) -> Response | None:
        body = await read_json(request)
        item = self._execs.get(ref)
        size = body.get("ConsoleSize")
        console = (size[0], size[1]) if isinstance(size, list) and len(size) == 2 and all(isinstance(part, int) for part in size) else None
        if body.get("Detach"):
            await self._execs.start(ref, attach=False)
            return Response(200)
        self._execs.check_startable(item)
        stream = await hijacked(request, tty=item.tty)
        try:
            session = await self._execs.start(ref, console=console)
        except AtollError as error:
            # Clients read the reason from the stream, and the exit code (126, 127) from inspect.
            text = f"{error}\r\n".encode()
            await head_read(stream)
            stream.write(text if item.tty else frame("stdout", text))
            return None
        assert session is not None
        try:
            await head_read(stream)
            detached = await serve(stream, session, tty=item.tty, keys=DetachKeys(item.config["DetachKeys"]))
            if detached:
                self._execs.event(item, "exec_detach")
            elif not stream.closed:
                await item.ended  # the client asks for the exit code as soon as the stream has ended
        finally:
            with contextlib.suppress(Disconnected):
                session.close()
        return None

    async def resize(self, request: Request, ref: str) -> Response:
        width, height = integer(request.query.get("w"), "w", 0), integer(request.query.get("h"), "h", 0)
        await self._execs.resize(ref, width or 0, height or 0)
        return Response(200)

    async def inspect(self, request: Request, ref: str) -> Response:
        return json_response(self._execs.inspect(ref))


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("POST", "/containers/{ref}/exec", routes.create)
    router.add("POST", "/exec/{ref}/start", routes.start)
    router.add("POST", "/exec/{ref}/resize", routes.resize)
    router.add("GET", "/exec/{ref}/json", routes.inspect)
