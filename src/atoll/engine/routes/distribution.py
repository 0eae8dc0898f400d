"""GET /distribution/{name}/json: what a registry has under a name, without pulling it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engine.credentials import registry_auth
from atoll.http import Request, Response, Router, json_response

if TYPE_CHECKING:
    from atoll.engine.engine import Engine


def add_routes(router: Router, engine: Engine) -> None:
    async def inspect(request: Request, name: str) -> Response:
        return json_response(await engine.images.describe(name, auth=registry_auth(request)))

    router.add("GET", "/distribution/{name:path}/json", inspect)
