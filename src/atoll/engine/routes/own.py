"""What Docker's API has no word for, below /atoll: an image made from a distribution's packages, explained, or checked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from atoll.engine.credentials import stored_auths
from atoll.engine.progress import stream_progress
from atoll.errors import InvalidInput
from atoll.http import Request, Response, Router, json_response
from atoll.images import Progress

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

VARIANTS = ("essential", "apt", "minbase", "important", "standard")  # mmdebstrap(1)


class Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def bootstrap(self, request: Request) -> None:
        """POST /atoll/images/bootstrap?ref=debian:bookworm&variant=&mirror=&include=...: progress as a pull's, then the image is there."""
        query = request.query
        reference, variant = query.get("ref") or "", query.get("variant") or "minbase"
        if variant not in VARIANTS:
            raise InvalidInput(f"there is no variant '{variant}': one of {', '.join(VARIANTS)}")
        include = [name for word in query.getall("include") for name in word.split(",") if name]
        await request.body()

        async def work(progress: Progress) -> None:
            image = await self._engine.images.bootstrap(
                reference, variant=variant, include=include, mirror=query.get("mirror"), progress=progress
            )
            self._engine.events.publish("image", "import", image.id, {"name": reference})

        await stream_progress(request, work)

    async def build_python(self, request: Request) -> None:
        """POST /atoll/build/python: the context as a tar; t=, base=, cmd=, extra=, index=, labels=, nocache=, pull=.

        Answers as /build does.
        """
        from atoll.build import executor
        from atoll.build.python.assemble import PythonOptions

        query = request.query
        options = PythonOptions(
            tags=query.getall("t"),
            base=query.get("base") or "",
            command=query.get("cmd") or "",
            extras=query.getall("extra"),
            indexes=query.getall("index"),
            labels=orjson.loads(query.get("labels") or "{}"),
            no_cache=query.flag("nocache"),
            pull=query.flag("pull"),
        )
        lookup = stored_auths(request)

        async def work(progress: Progress) -> None:
            executor.credentials.set(lookup)
            image = await self._engine.builder.build_python(request.chunks(), options, progress)
            self._engine.events.publish("image", "build", image.id, {"name": next(iter(options.tags), image.id)})

        await stream_progress(request, work)

    async def why(self, request: Request) -> Response:
        """GET /atoll/images/why?ref=IMAGE: its layers, what each added and hid, its largest files."""
        return json_response(await self._engine.images.explain(request.query.get("ref") or ""))

    async def check(self, request: Request) -> None:
        """POST /atoll/images/check: progress, and in the end {"aux": {"Faults": [...]}}."""
        await request.body()
        loop = asyncio.get_running_loop()

        async def work(progress: Progress) -> None:
            def note(message: dict[str, Any]) -> None:
                loop.call_soon_threadsafe(progress, message)

            faults = await self._engine.images.check(note)
            progress({"aux": {"Faults": faults}})

        await stream_progress(request, work)


def add_routes(router: Router, engine: Engine) -> None:
    routes = Routes(engine)
    router.add("POST", "/atoll/images/bootstrap", routes.bootstrap)
    router.add("POST", "/atoll/build/python", routes.build_python)
    router.add("GET", "/atoll/images/why", routes.why)
    router.add("POST", "/atoll/images/check", routes.check)
