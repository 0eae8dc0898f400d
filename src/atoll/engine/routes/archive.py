"""Files of a container: copying in and out, what has changed, the whole root, and commit."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson

from atoll.engine.edge import read_json
from atoll.errors import InvalidInput
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

TAR = ("Content-Type", "application/x-tar")


def path_stat(found: dict[str, Any]) -> tuple[str, str]:
    return "X-Docker-Container-Path-Stat", base64.b64encode(orjson.dumps(found)).decode()


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    async def stat(self, request: Request, ref: str) -> Response:
        container = self._containers.get(ref)
        return Response(200, (path_stat(await self._containers.archive.stat(container, request.query.get("path") or "")),))

    async def read(self, request: Request, ref: str) -> Response:
        container = self._containers.get(ref)
        found, tar = await self._containers.archive.read(container, request.query.get("path") or "")
        self._engine.services.container_event(container, "archive-path")
        return Response(200, (TAR, path_stat(found)), tar)

    async def write(self, request: Request, ref: str) -> Response:
        query = request.query
        await self._containers.archive.write(
            self._containers.get(ref),
            query.get("path") or "",
            request.chunks(),
            keep_kinds=query.flag("noOverwriteDirNonDir"),
            keep_owner=query.flag("copyUIDGID"),
        )
        return Response(200)

    async def changes(self, request: Request, ref: str) -> Response:
        return json_response(await self._engine.changes.diff(self._containers.get(ref)) or None)

    async def export(self, request: Request, ref: str) -> Response:
        return Response(200, (("Content-Type", "application/octet-stream"),), self._engine.changes.export(self._containers.get(ref)))

    async def commit(self, request: Request) -> Response:
        query = request.query
        if not query.get("container"):
            raise InvalidInput("bad parameter: container is missing")
        body = await read_json(request)
        repository, tag = query.get("repo") or "", query.get("tag") or ""
        image = await self._engine.changes.commit(
            self._containers.get(query.get("container") or ""),
            target=(f"{repository}:{tag}" if tag else repository) or None,
            comment=query.get("comment") or "",
            author=query.get("author") or "",
            pause=query.flag("pause", default=True),
            changes=query.getall("changes"),
            config=body,
        )
        return json_response({"Id": image.id}, 201)


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("HEAD", "/containers/{ref}/archive", routes.stat)
    router.add("GET", "/containers/{ref}/archive", routes.read)
    router.add("PUT", "/containers/{ref}/archive", routes.write)
    router.add("GET", "/containers/{ref}/changes", routes.changes)
    router.add("GET", "/containers/{ref}/export", routes.export)
    router.add("POST", "/commit", routes.commit)
