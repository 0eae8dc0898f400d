"""Containers: create, look, start, stop, wait, logs, stats, remove."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

import orjson

from atoll.engine.containers import listing, logs
from atoll.engine.containers.containers import PRUNE_FILTERS, Condition
from atoll.engine.containers.log_details import details
from atoll.engine.edge import api_version, integer, read_json
from atoll.engine.filters import Filters
from atoll.engine.platforms import platform_of
from atoll.engine.progress import JSON_LINES
from atoll.engine.streams import frames
from atoll.engine.times import parse_moment
from atoll.errors import InvalidInput, NotFound
from atoll.http import Request, Response, Router, Stream, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
CONDITIONS = ("not-running", "next-exit", "removed")


async def hijacked(request: Request, *, tty: bool) -> Stream:
    """The connection as a process's stdio, in dockerd's words: 101 UPGRADED; where no upgrade was asked for 200, as a raw stream."""
    return await request.upgrade((stream_type(request, tty=tty or not request.upgrade_token),), reason=b"UPGRADED")


def stream_type(request: Request, *, tty: bool) -> tuple[str, str]:
    """The content type of output: told apart since 1.42."""
    return "Content-Type", RAW if tty or api_version(request) < (1, 42) else MULTIPLEXED


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    async def list(self, request: Request) -> Response:
        query = request.query
        rows = self._containers.list(
            all=query.flag("all"),
            filters=Filters.parse(query.get("filters"), listing.FILTERS),
            limit=integer(query.get("limit"), "limit"),
            size=query.flag("size"),
        )
        return json_response(rows)

    async def create(self, request: Request) -> Response:
        body = await read_json(request)
        platform = platform_of(request.query.get("platform"))
        return json_response(await self._containers.create_from_client(request.query.get("name"), body, platform), 201)

    async def inspect(self, request: Request, ref: str) -> Response:
        return json_response(self._containers.inspect(ref, size=request.query.flag("size"), version=api_version(request)))

    async def start(self, request: Request, ref: str) -> Response:
        await self._containers.start(ref)
        return Response(204)

    async def stop(self, request: Request, ref: str) -> Response:
        await self._containers.stop(ref, integer(request.query.get("t"), "t"), request.query.get("signal"))
        return Response(204)

    async def restart(self, request: Request, ref: str) -> Response:
        await self._containers.restart(ref, integer(request.query.get("t"), "t"), request.query.get("signal"))
        return Response(204)

    async def kill(self, request: Request, ref: str) -> Response:
        await self._containers.kill(ref, request.query.get("signal") or "KILL")
        return Response(204)

    async def pause(self, request: Request, ref: str) -> Response:
        await self._containers.pause(ref)
        return Response(204)

    async def unpause(self, request: Request, ref: str) -> Response:
        await self._containers.resume(ref)
        return Response(204)

    async def rename(self, request: Request, ref: str) -> Response:
        await self._containers.rename(ref, request.query.get("name") or "")
        return Response(204)

    async def update(self, request: Request, ref: str) -> Response:
        await self._containers.update(ref, await read_json(request))
        return json_response({"Warnings": None})

    async def resize(self, request: Request, ref: str) -> Response:
        width, height = integer(request.query.get("w"), "w", 0), integer(request.query.get("h"), "h", 0)
        await self._containers.resize(ref, width or 0, height or 0)
        return Response(200)

    async def delete(self, request: Request, ref: str) -> Response:
        query = request.query
        if query.flag("link"):
            raise InvalidInput(f"{ref} is a container, no link: a link is named /container/alias")
        await self._containers.remove(ref, force=query.flag("force"), volumes=query.flag("v"))
        return Response(204)

    async def unlink(self, request: Request, ref: str, alias: str) -> Response:
        if not request.query.flag("link"):
            raise NotFound(f"No such container: {ref}/{alias}")
        await self._containers.unlink(ref, alias)
        return Response(204)

    async def prune(self, request: Request) -> Response:
        return json_response(await self._containers.prune(Filters.parse(request.query.get("filters"), PRUNE_FILTERS)))

    async def top(self, request: Request, ref: str) -> Response:
        return json_response(await self._containers.top(ref, request.query.get("ps_args") or "-ef"))

    async def wait(self, request: Request, ref: str) -> Response | None:
        condition = request.query.get("condition") or "not-running"
        if condition not in CONDITIONS:
            raise InvalidInput(f'invalid condition: "{condition}"')
        ended = self._containers.waiter(self._containers.get(ref), cast(Condition, condition))
        # The head goes at once: it tells the client that nothing which happens from here on is missed.
        writer = request.start(200, JSON_LINES)
        gone = asyncio.create_task(request.wait_disconnected(), name="client of wait")
        try:
            await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                writer.write(orjson.dumps({"StatusCode": ended.result().code}) + b"\n")
        finally:
            gone.cancel()
            ended.cancel()
        return None

    async def logs(self, request: Request, ref: str) -> Response:
        query = request.query
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        if not stdout and not stderr:
            raise InvalidInput("Bad parameters: you must choose at least one stream")
        container = self._containers.get(ref)
        since, until = query.get("since"), query.get("until")
        selection = logs.Selection(
            stdout,
            stderr,
            parse_moment(since) if since and since != "0" else None,
            parse_moment(until) if until and until != "0" else None,
            tail_of(query.get("tail")),
            query.flag("timestamps"),
            details(container.record) if query.flag("details") else b"",
        )
        batches = self._containers.log_batches(container, selection, follow=query.flag("follow"))
        return Response(200, (stream_type(request, tty=container.tty),), encode(batches, tty=container.tty))

    async def stats(self, request: Request, ref: str) -> Response:
        container = self._containers.get(ref)
        statistics = self._containers.statistics
        if not request.query.flag("stream", default=True):
            return json_response(await statistics.sample(container, one_shot=request.query.flag("one-shot")))
        return Response(200, JSON_LINES, json_lines(statistics.stream(container)))


def tail_of(text: str | None) -> int | None:
    """Lines from the end; None for all of them, as Docker takes whatever is not a number."""
    if not text or text == "all" or not text.isdigit():
        return None
    return int(text)


async def encode(batches: AsyncIterator[list[logs.Piece]], *, tty: bool) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(cast(Any, batches)) as source:
        async for batch in source:
            yield b"".join([data for _, data in batch]) if tty else frames(batch)


async def json_lines(values: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(cast(Any, values)) as source:
        async for value in source:
            yield orjson.dumps(value) + b"\n"


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("GET", "/containers/json", routes.list)
    router.add("POST", "/containers/create", routes.create)
    router.add("POST", "/containers/prune", routes.prune)
    for method, action, handler in (
        ("GET", "json", routes.inspect),
        ("GET", "top", routes.top),
        ("GET", "logs", routes.logs),
        ("GET", "stats", routes.stats),
        ("POST", "start", routes.start),
        ("POST", "stop", routes.stop),
        ("POST", "restart", routes.restart),
        ("POST", "kill", routes.kill),
        ("POST", "pause", routes.pause),
        ("POST", "unpause", routes.unpause),
        ("POST", "rename", routes.rename),
        ("POST", "update", routes.update),
        ("POST", "resize", routes.resize),
        ("POST", "wait", routes.wait),
    ):
        router.add(method, f"/containers/{{ref}}/{action}", handler)
    router.add("DELETE", "/containers/{ref}", routes.delete)
    router.add("DELETE", "/containers/{ref}/{alias}", routes.unlink)
