"""GET /events: what happens, as it happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from atoll.engine.events import FILTERS
from atoll.engine.filters import Filters
from atoll.engine.times import parse_moment
from atoll.errors import InvalidInput
from atoll.http import Request, Response, Router

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

SEQUENCE = "application/json-seq"
TYPES = ("application/x-ndjson", "application/jsonl", SEQUENCE)


def add_routes(router: Router, engine: Engine) -> None:
    async def events(request: Request) -> Response | None:
        query = request.query
        since, until = query.get("since"), query.get("until")
        begin, end = parse_moment(since) if since else None, parse_moment(until) if until else None
        if begin is not None and end is not None and begin > end:
            raise InvalidInput(f"`since` time ({since}) cannot be after `until` time ({until})")
        filters = Filters.parse(query.get("filters"), FILTERS)
        accepted = request.headers.get("accept") or ""
        kind = next((name for name in TYPES if name in accepted), "application/json")
        before = b"\x1e" if kind == SEQUENCE else b""
        writer = request.start(200, (("Content-Type", kind),))
        stream = engine.events.subscribe(filters, begin, end)

        async def carry() -> None:
            async for event in stream:
                writer.write(before + orjson.dumps(event) + b"\n")
                await writer.drain()

        carrier = asyncio.create_task(carry(), name="events of a client")
        gone = asyncio.create_task(request.wait_disconnected(), name="client of events")
        try:
            await asyncio.wait((carrier, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (carrier, gone):
                task.cancel()
            await asyncio.gather(carrier, gone, return_exceptions=True)
            await stream.aclose()
        return None

    router.add("GET", "/events", events)
