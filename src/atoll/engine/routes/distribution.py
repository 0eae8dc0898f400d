"""GET /distribution/{name}/json: what a registry has under a name, without pulling it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.errors import NotSupported
from atoll.http import Request, Response, Router

if TYPE_CHECKING:
    from atoll.engine.engine import Engine


def add_routes(router: Router, _: Engine) -> None:
    async def inspect(_: Request, **__: str) -> Response:
        raise NotSupported("asking a registry for an image's descriptor is not supported yet: pull the image and inspect it")

    router.add("GET", "/distribution/{name:path}/json", inspect)
