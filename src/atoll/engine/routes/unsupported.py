"""What Atoll is not: a swarm, a host of plugins. Each says so in Docker's way, never by a missing page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.errors import NotFound, NotSupported, Unavailable
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

NO_SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
METHODS = ("GET", "POST", "PUT", "DELETE")


async def no_swarm(_: Request, **__: str) -> Response:
    raise Unavailable(NO_SWARM)


async def no_swarm_mode(_: Request, **__: str) -> Response:
    raise NotSupported("swarm mode is not supported: `atoll cluster start` starts a Kubernetes cluster")


async def no_plugins(_: Request, **__: str) -> Response:
    raise NotSupported("plugins are not supported")


async def no_such_plugin(_: Request, name: str) -> Response:
    raise NotFound(f'plugin "{name}" not found')


async def plugins(_: Request) -> Response:
    return json_response([])


def add_routes(router: Router, _: Engine) -> None:
    for kind in ("nodes", "services", "tasks", "secrets", "configs"):
        for method in METHODS:
            router.add(method, f"/{kind}", no_swarm)
            router.add(method, f"/{kind}/{{rest:path}}", no_swarm)
    router.add("GET", "/swarm", no_swarm)
    router.add("GET", "/swarm/unlockkey", no_swarm)
    for action in ("leave", "update", "unlock"):
        router.add("POST", f"/swarm/{action}", no_swarm)
    for action in ("init", "join"):
        router.add("POST", f"/swarm/{action}", no_swarm_mode)
    router.add("GET", "/plugins", plugins)
    router.add("GET", "/plugins/privileges", no_plugins)
    router.add("GET", "/plugins/{name:path}/json", no_such_plugin)
    router.add("DELETE", "/plugins/{name:path}", no_such_plugin)
    router.add("POST", "/plugins/{rest:path}", no_plugins)
