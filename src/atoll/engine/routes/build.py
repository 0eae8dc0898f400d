"""POST /build: the classic builder's door. The context comes as a tar, the answer goes as JSON lines.

With `version=2` the context is with a BuildKit session, as the docker command had it before buildx (18.09 to 20.10), and the answer's lines
are that session's status.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import orjson

from atoll.build import executor
from atoll.build.options import Options
from atoll.engine.buildspace import unused_since
from atoll.engine.credentials import stored_auths
from atoll.engine.edge import integer
from atoll.engine.filters import Filters
from atoll.engine.names import new_id
from atoll.engine.progress import Feed, stream_progress
from atoll.engine.routes import buildkit
from atoll.engine.routes.buildkit import Door
from atoll.errors import InvalidInput
from atoll.http import Query, Request, Response, Router, json_response
from atoll.units import parse_duration

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

BUILDKIT = "2"
LIMITS = {
    "memory": "Memory",
    "memswap": "MemorySwap",
    "cpushares": "CpuShares",
    "cpuperiod": "CpuPeriod",
    "cpuquota": "CpuQuota",
    "shmsize": "ShmSize",
}

WORDS = {"cpusetcpus": "CpusetCpus", "cpusetmems": "CpusetMems", "cgroupparent": "CgroupParent"}
LISTS = {"ulimits": "Ulimits", "securityopt": "SecurityOpt"}


class Routes:
    def __init__(self, engine: Engine, door: Door) -> None:
        self._engine = engine
        self._door = door

    async def build(self, request: Request) -> Response | None:
        """Docker Engine API, ImageBuild."""
        query = request.query
        options = read_options(query)
        if query.get("version") == BUILDKIT:
            return await self._build_by_session(request, options)
        credentials = stored_auths(request)

        async def work(feed: Feed) -> None:
            executor.credentials.set(credentials)
            session = query.get("session")
            secrets = await self._door.control.secrets(session) if session else None
            image = await self._engine.builder.build(request.chunks(), options, feed, feed.ready, secrets)
            self._engine.events.publish("image", "build", image.id, {"name": next(iter(options.tags), image.id)})

        await stream_progress(request, work)
        return None

    async def _build_by_session(self, request: Request, options: Options) -> Response | None:
        from atoll.build.buildkit.classic import quiet, solve_request
        from atoll.build.buildkit.upload import POSTED_ID

        query = request.query
        ref = query.get("buildid") or new_id()
        if ref.startswith(POSTED_ID):
            await self._door.control.posted.offer(ref.removeprefix(POSTED_ID), request.chunks())
            return Response(200)
        outputs, caches = _json(query, "outputs", list), _json(query, "cachefrom", list)
        solve = solve_request(ref, query.get("session") or "", options, outputs, caches)
        await request.body()

        async def work(feed: Feed) -> None:
            async for message in self._door.control.build(solve):
                told = quiet(message) if options.quiet else message
                if told is not None:
                    feed(told)
                    await feed.ready()

        await stream_progress(request, work)
        return None

    async def prune(self, request: Request) -> Response:
        """Docker Engine API, BuildPrune. The filter `until` keeps what was used since, the sizes what was used last."""
        query = request.query
        filters = Filters.parse(query.get("filters"))
        await request.body()
        moments = []
        if until := filters.one("until"):
            moments.append(time.time() - parse_duration(until) / 1e9)
        sizes = {name: integer(query.get(name), name, 0) or 0 for name in ("reserved-space", "max-used-space", "min-free-space")}
        reserved = sizes["reserved-space"] or integer(query.get("keep-storage"), "keep-storage", 0) or 0  # its name before API 1.48
        spared = unused_since(
            self._engine.builder.rows(),
            reserved=reserved,
            maximum=sizes["max-used-space"],
            minimum_free=sizes["min-free-space"],
            free=shutil.disk_usage(self._engine.instance.home).free,
        )
        if spared is not None:
            moments.append(spared)
        return json_response(await self._engine.builder.prune(unused_since=min(moments, default=None)))


def read_options(query: Query) -> Options:
    """Raises InvalidInput naming the parameter."""
    return Options(
        dockerfile=(query.get("dockerfile") or "Dockerfile").lstrip("/"),
        tags=tuple(tag for tag in query.getall("t") if tag),
        target=query.get("target") or "",
        arguments=_json(query, "buildargs", dict),
        labels=_json(query, "labels", dict),
        network=query.get("networkmode") or "default",
        platform=query.get("platform") or "",
        remote=query.get("remote") or "",
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        limits=_limits(query),
    )


def _limits(query: Query) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for name, field in LIMITS.items():
        value = query.get(name)
        if value and value != "0":
            try:
                limits[field] = int(value)
            except ValueError:
                raise InvalidInput(f"invalid value for {name}: '{value}' is no whole number") from None
    for name, field in WORDS.items():
        if query.get(name):
            limits[field] = query.get(name)
    for name, field in LISTS.items():
        if found := _json(query, name, list):
            limits[field] = found
    if query.getall("extrahosts"):
        limits["ExtraHosts"] = [host for word in query.getall("extrahosts") for host in word.split(",") if host]
    return limits


def _json(query: Query, name: str, kind: type) -> Any:
    text = query.get(name)
    if not text:
        return kind()
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"error reading {name}: {error}") from error
    if value is not None and not isinstance(value, kind):
        raise InvalidInput(f"error reading {name}: it must be a JSON {'object' if kind is dict else 'array'}")
    return value or kind()


def add_routes(router: Router, engine: Engine) -> None:
    door = Door(engine)
    routes = Routes(engine, door)
    router.add("POST", "/build", routes.build)
    router.add("POST", "/build/prune", routes.prune)
    buildkit.add_routes(router, door)
