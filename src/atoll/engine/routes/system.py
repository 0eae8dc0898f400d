"""The engine itself: ping, version, info, disk usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll import __version__
from atoll.engine import system
from atoll.engine.edge import API_VERSION
from atoll.engine.info import info as describe
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

PING_HEADERS = (
    ("Api-Version", "{}.{}".format(*API_VERSION)),
    ("Builder-Version", "2"),  # BuildKit, which clients then prefer; those without it build the classic way
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Swarm", "inactive"),
    ("Server", f"Atoll/{__version__} (linux)"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Content-Type", "text/plain; charset=utf-8"),
)


def add_routes(router: Router, engine: Engine) -> None:
    async def ping(request: Request) -> Response:
        return Response(200, PING_HEADERS, b"" if request.method == "HEAD" else b"OK")

    async def version(_: Request) -> Response:
        return json_response(system.version())

    async def info(_: Request) -> Response:
        return json_response(describe(engine))

    async def usage(request: Request) -> Response:
        await engine.images.measure()
        return json_response(system.disk_usage(engine, request.query.getall("type")))

    router.add("GET", "/_ping", ping)
    router.add("HEAD", "/_ping", ping)
    router.add("GET", "/version", version)
    router.add("GET", "/info", info)
    router.add("GET", "/system/df", usage)
