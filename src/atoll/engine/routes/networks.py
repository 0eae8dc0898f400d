"""Networks: list, inspect, create, remove, and seating containers on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engine.edge import read_json
from atoll.engine.filters import Filters
from atoll.errors import InvalidInput, NotFound
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

FILTERS = ["dangling", "driver", "id", "label", "name", "scope", "type"]
PRUNE_FILTERS = ("until", "label", "label!")


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._networks = engine.networks

    async def list(self, request: Request) -> Response:
        return json_response(self._networks.list(Filters.parse(request.query.get("filters"), FILTERS).as_dict()))

    async def inspect(self, request: Request, ref: str) -> Response:
        if request.query.get("scope") not in (None, "", "local"):
            raise NotFound(f"network {ref} not found")  # what there is, is local
        return json_response(self._networks.inspect(ref))

    async def create(self, request: Request) -> Response:
        return json_response(await self._networks.create(await read_json(request)), 201)

    async def delete(self, request: Request, ref: str) -> Response:
        await self._networks.remove(ref)
        return Response(204)

    async def prune(self, request: Request) -> Response:
        filters = Filters.parse(request.query.get("filters"), PRUNE_FILTERS)
        return json_response(await self._networks.prune(filters.as_dict()))

    async def connect(self, request: Request, ref: str) -> Response:
        body = await read_json(request)
        settings = body.get("EndpointConfig") or {}
        if not isinstance(body.get("Container"), str) or not isinstance(settings, dict):
            raise InvalidInput("invalid JSON: Container must be a string and EndpointConfig an object")
        container = self._engine.containers.get(body["Container"])
        async with container.lock:
            await self._engine.services.networker.join(container, ref, settings)
        return Response(200)

    async def disconnect(self, request: Request, ref: str) -> Response:
        body = await read_json(request)
        if not isinstance(body.get("Container"), str):
            raise InvalidInput("invalid JSON: Container must be a string")
        try:
            container = self._engine.containers.get(body["Container"])
        except NotFound:
            if body.get("Force"):
                return Response(200)
            raise
        async with container.lock:
            await self._engine.services.networker.leave(container, ref)
        return Response(200)


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("GET", "/networks", routes.list)
    router.add("POST", "/networks/create", routes.create)
    router.add("POST", "/networks/prune", routes.prune)
    router.add("GET", "/networks/{ref}", routes.inspect)
    router.add("DELETE", "/networks/{ref}", routes.delete)
    router.add("POST", "/networks/{ref}/connect", routes.connect)
    router.add("POST", "/networks/{ref}/disconnect", routes.disconnect)
