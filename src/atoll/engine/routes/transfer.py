"""Images on the move: pull and import, push, save and load, and the check of a login."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.engine.containers.create import check_platform
from atoll.engine.credentials import registry_auth
from atoll.engine.edge import read_json
from atoll.engine.instructions import apply_changes
from atoll.engine.platforms import platform_of
from atoll.engine.progress import JSON_LINES, line, stream_progress
from atoll.errors import InvalidInput, NotFound
from atoll.http import Request, Response, Router, json_response
from atoll.images import Platform, Progress, parse
from atoll.images.bridge import produce

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

PIECE = 1 << 20  # bytes
TAR = ("Content-Type", "application/x-tar")


def with_tag(name: str, tag: str | None) -> str:
    """A tag or digest that came as a parameter of its own, put on the name."""
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    async def create(self, request: Request) -> Response | None:
        query = request.query
        if query.get("fromImage"):
            await self._pull(request, with_tag(query.get("fromImage") or "", query.get("tag")))
            return None
        source = query.get("fromSrc") or ""
        if source == "-":
            return await self._import(request, request.chunks())
        if not source.startswith(("http://", "https://")):
            raise InvalidInput(f"import takes {source!r} from nowhere: give an http or https URL, or - for the request's body")
        return await self._import_from(request, source)

    async def _pull(self, request: Request, name: str) -> None:
        auth, platform = registry_auth(request), platform_of(request.query.get("platform"))
        reference = str(parse(name).with_default_tag().familiar)

        async def work(progress: Progress) -> None:
            image = await self._images.pull(reference, auth=auth, platform=platform, progress=progress)
            self._engine.events.publish("image", "pull", reference, {"name": reference, **_labels(image.runtime_config)})

        await stream_progress(request, work)

    async def _import_from(self, request: Request, url: str) -> Response:
        from atoll.build.remote import download

        await request.body()
        with tempfile.TemporaryDirectory(dir=self._engine.builder.workshop.scratch) as place:
            fetched = await download(url, Path(place))
            with (Path(place) / fetched.name).open("rb", buffering=0) as file:
                return await self._import(request, produce(iter(lambda: file.read(PIECE), b"")))

    async def _import(self, request: Request, chunks: AsyncIterator[bytes]) -> Response:
        query, platform = request.query, _one_platform(request)
        if platform is not None and platform.os != "linux":
            raise InvalidInput(f"cannot import an image of {platform}: images here are of linux")
        repository = query.get("repo") or ""
        target = with_tag(repository, query.get("tag")) or None
        config = apply_changes({}, query.getall("changes"))
        image = await self._images.import_tar(
            chunks,
            target=target,
            message=query.get("message") or f"Imported from {query.get('fromSrc')}",
            config=config,
            platform=platform,
        )
        self._engine.events.publish("image", "import", image.id, {"name": target or image.id})
        return Response(200, JSON_LINES, line({"status": image.id}))

    async def push(self, request: Request, name: str) -> None:
        tag = request.query.get("tag")
        auth = registry_auth(request)
        await request.body()
        if tag or parse(name).tag:
            names = [with_tag(name, tag)]
        else:
            repository = parse(name).name
            names = [known for image in self._images.all() for known in image.repo_tags if parse(known).name == repository]
        if not names or self._images.find(names[0]) is None:
            raise NotFound(f"An image does not exist locally with the tag: {parse(name).familiar_name}")
        self._check_platform(request, names)

        async def work(progress: Progress) -> None:
            for reference in names:
                await self._images.push(reference, auth=auth, progress=progress)
                self._engine.events.publish("image", "push", reference, {"name": reference})

        await stream_progress(request, work)

    async def get(self, request: Request, name: str) -> Response:
        return self._save(request, [name])

    async def get_all(self, request: Request) -> Response:
        names = [name for value in request.query.getall("names") for name in value.split(",") if name]
        return self._save(request, names)

    def _save(self, request: Request, names: list[str]) -> Response:
        self._check_platform(request, names)
        tar = self._images.save(names)
        for name in names:
            for image in self._images.named(name):
                self._engine.events.publish("image", "save", image.id, {"name": name})
        return Response(200, (TAR,), tar)

    def _check_platform(self, request: Request, names: list[str]) -> None:
        wanted = _one_platform(request)
        if wanted is not None:
            for name in names:
                for image in self._images.named(name):
                    check_platform(name, image, wanted)

    async def load(self, request: Request) -> None:
        quiet, platform = request.query.flag("quiet"), _one_platform(request)

        async def work(progress: Progress) -> None:
            chosen = (lambda message: progress(message) if "stream" in message else None) if quiet else progress
            for image in await self._images.load(request.chunks(), chosen, platform=platform):
                self._engine.events.publish("image", "load", image.id, {"name": (*image.repo_tags, image.id)[0]})

        await stream_progress(request, work)

    async def auth(self, request: Request) -> Response:
        body = await read_json(request)
        if not all(isinstance(body.get(name) or "", str) for name in ("username", "password", "serveraddress", "identitytoken")):
            raise InvalidInput("invalid JSON: the fields of an auth configuration are strings")
        return json_response(await self._images.login(body))


def _one_platform(request: Request) -> Platform | None:
    """Raises InvalidInput for more than one, as Docker does: an image here is of one platform."""
    given = request.query.getall("platform")
    if len(given) > 1:
        raise InvalidInput("multiple platform parameters not supported")
    return platform_of(given[0]) if given else None


def _labels(config: dict[str, Any]) -> dict[str, str]:
    labels = config.get("Labels")
    return labels if isinstance(labels, dict) else {}


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("POST", "/images/create", routes.create)
    router.add("POST", "/images/load", routes.load)
    router.add("GET", "/images/get", routes.get_all)
    router.add("GET", "/images/{name:path}/get", routes.get)
    router.add("POST", "/images/{name:path}/push", routes.push)
    router.add("POST", "/auth", routes.auth)
