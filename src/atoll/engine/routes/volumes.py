"""Volumes: list, inspect, create, remove, prune."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from atoll.engine.containers.config import Table, read
from atoll.engine.edge import read_json
from atoll.engine.filters import Filters
from atoll.errors import NotFound, Unavailable
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

FILTERS = ["dangling", "driver", "label", "name"]
PRUNE_FILTERS = ("all", "label", "label!")
FIELDS: Table = {"Name": ("text", ""), "Driver": ("text", "local"), "DriverOpts": ("map", {}), "Labels": ("map", {})}


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._volumes = engine.volumes

    async def list(self, request: Request) -> Response:
        filters = Filters.parse(request.query.get("filters"), FILTERS)
        return json_response({"Volumes": self._volumes.list(filters.as_dict()), "Warnings": None})

    async def inspect(self, request: Request, name: str) -> Response:
        return json_response(self._volumes.inspect(name))

    async def create(self, request: Request) -> Response:
        body = read(await read_json(request), FIELDS)
        is_new = not body["Name"] or not self._exists(body["Name"])
        volume = self._volumes.create(body["Name"], driver=body["Driver"] or "local", labels=body["Labels"], options=body["DriverOpts"])
        if is_new:
            self._engine.events.publish("volume", "create", volume["Name"], {"driver": volume["Driver"]})
        return json_response(volume, 201)

    def _exists(self, name: str) -> bool:
        try:
            self._volumes.inspect(name)
        except NotFound:
            return False
        return True

    async def update(self, request: Request, name: str) -> Response:
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")

    async def delete(self, request: Request, name: str) -> Response:
        await asyncio.to_thread(self._volumes.remove, name, force=request.query.flag("force"))
        self._engine.events.publish("volume", "destroy", name, {"driver": "local"})
        return Response(204)

    async def prune(self, request: Request) -> Response:
        filters = Filters.parse(request.query.get("filters"), PRUNE_FILTERS)
        result = await asyncio.to_thread(self._volumes.prune, filters.as_dict())
        for name in result["VolumesDeleted"] or ():
            self._engine.events.publish("volume", "destroy", name, {"driver": "local"})
        self._engine.events.publish("volume", "prune", "", {"reclaimed": str(result["SpaceReclaimed"])})
        return json_response(result)


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("GET", "/volumes", routes.list)
    router.add("POST", "/volumes/create", routes.create)
    router.add("POST", "/volumes/prune", routes.prune)
    router.add("GET", "/volumes/{name}", routes.inspect)
    router.add("PUT", "/volumes/{name}", routes.update)
    router.add("DELETE", "/volumes/{name}", routes.delete)
