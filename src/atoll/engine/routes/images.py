"""Images at hand: list, inspect, history, tag, delete, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engine.containers.create import check_platform
from atoll.engine.filters import Filters
from atoll.engine.platforms import platform_of
from atoll.engine.times import parse_moment
from atoll.errors import InvalidInput, NotSupported
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

FILTERS = ["before", "dangling", "label", "label!", "reference", "since", "until"]
PRUNE_FILTERS = ("dangling", "until", "label", "label!")


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    async def index(self, request: Request) -> Response:
        query = request.query
        filters = Filters.parse(query.get("filters"), FILTERS).as_dict()
        if query.get("filter"):  # what clients older than API 1.41 send
            filters.setdefault("reference", []).append(query.get("filter") or "")
        return json_response(
            self._images.summaries(filters=filters, shared_size=query.flag("shared-size"), manifests=query.flag("manifests"))
        )

    async def inspect(self, request: Request, name: str) -> Response:
        query = request.query
        if query.flag("manifests") and query.get("platform"):
            raise InvalidInput("conflicting options: manifests and platform options cannot both be set")
        self._check_platform(request, name)
        return json_response(self._images.inspect(name, manifests=query.flag("manifests")))

    async def history(self, request: Request, name: str) -> Response:
        self._check_platform(request, name)
        return json_response(self._images.history(name))

    async def attestations(self, request: Request, name: str) -> Response:
        self._check_platform(request, name)
        raise NotSupported(f"image {self._images.resolve(name).id} has no attestations: images here are kept without")

    def _check_platform(self, request: Request, name: str) -> None:
        wanted = platform_of(request.query.get("platform"))
        if wanted is not None:
            check_platform(name, self._images.resolve(name), wanted)

    async def tag(self, request: Request, name: str) -> Response:
        query = request.query
        repository = query.get("repo") or ""
        if not repository:
            raise InvalidInput("invalid reference format: repo is missing")
        target = f"{repository}:{query.get('tag')}" if query.get("tag") else repository
        image = self._images.resolve(name)
        self._images.tag(name, target)
        self._engine.events.publish("image", "tag", image.id, {"name": target})
        return Response(201)

    async def delete(self, request: Request, name: str) -> Response:
        query = request.query
        if query.getall("platforms"):
            raise NotSupported("an image here is of one platform: remove it as a whole, without platforms")
        image_id = self._images.resolve(name).id
        removed = await self._images.remove(name, force=query.flag("force"), prune=not query.flag("noprune"))
        self._publish(removed, image_id)
        return json_response(removed)

    def _publish(self, removed: list[dict[str, str]], image_id: str) -> None:
        for item in removed:
            if "Untagged" in item:
                self._engine.events.publish("image", "untag", image_id, {"name": item["Untagged"]})
            elif item["Deleted"] == image_id or item["Deleted"].startswith("sha256:"):
                self._engine.events.publish("image", "delete", item["Deleted"], {"name": item["Deleted"]})

    async def prune(self, request: Request) -> Response:
        filters = Filters.parse(request.query.get("filters"), PRUNE_FILTERS)
        until = filters.one("until")
        result = await self._images.prune(
            dangling=filters.flag("dangling") is not False,
            until_ns=parse_moment(until) if until else None,
            labels=filters.get("label"),
            spared=filters.get("label!"),
        )
        self._engine.events.publish("image", "prune", "", {"reclaimed": str(result["SpaceReclaimed"])})
        return json_response(result)

    async def search(self, request: Request) -> Response:
        from atoll.images.search import LIMIT_DEFAULT, search

        limit = request.query.get("limit") or str(LIMIT_DEFAULT)
        if not limit.isdecimal():
            raise InvalidInput(f"limit {limit} is no number")
        filters = Filters.parse(request.query.get("filters"))
        return json_response(await search(request.query.get("term") or "", int(limit), filters.as_dict()))


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("GET", "/images/json", routes.index)
    router.add("GET", "/images/search", routes.search)
    router.add("POST", "/images/prune", routes.prune)
    router.add("GET", "/images/{name:path}/json", routes.inspect)
    router.add("GET", "/images/{name:path}/history", routes.history)
    router.add("GET", "/images/{name:path}/attestations", routes.attestations)
    router.add("POST", "/images/{name:path}/tag", routes.tag)
    router.add("DELETE", "/images/{name:path}", routes.delete)
