"""POST /build: the classic builder's door. The context comes as a tar, the answer goes as JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.errors import NotSupported
from atoll.http import Request, Response, Router

if TYPE_CHECKING:
    from atoll.engine.engine import Engine


def add_routes(router: Router, _: Engine) -> None:
    async def build(_: Request) -> Response:
        raise NotSupported("building images is not supported yet")

    async def prune(_: Request) -> Response:
        raise NotSupported("building images is not supported yet: there is no build cache to prune")

    router.add("POST", "/build", build)
    router.add("POST", "/build/prune", prune)
