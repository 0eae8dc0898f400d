"""POST /session and POST /grpc: BuildKit's two connections, upgraded to HTTP/2 in the clear ("h2c").

On /grpc the client calls us (build.buildkit.control); over /session we call the client, for files, secrets and credentials. Both begin with
HTTP/2's own preface: nothing of the HTTP/1.1 request is answered within it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.errors import InvalidInput
from atoll.http import Request, Router

if TYPE_CHECKING:
    from atoll.build.buildkit.control import Control
    from atoll.engine.engine import Engine
    from atoll.images import Image

H2C = "h2c"
ID = "X-Docker-Expose-Session-Uuid"
KEY = "X-Docker-Expose-Session-Sharedkey"
METHOD = "X-Docker-Expose-Session-Grpc-Method"


class Door:
    """The builder as BuildKit's clients reach it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: Control | None = None

    @property
    def control(self) -> Control:
        """Made with the first client: gRPC and its messages are not loaded for nothing."""
        if self._made is None:
            from atoll.build.buildkit.control import Control

            engine = self._engine
            self._made = Control(engine.builder, engine.images, engine.instance.run / "build", self._told)
        return self._made

    def _told(self, image: Image, name: str) -> None:
        self._engine.events.publish("image", "build", image.id, {"name": name or image.id})

    async def grpc(self, request: Request) -> None:
        """Docker Engine API, unversioned."""
        _check(request)
        await self.control.serve(await request.upgrade())

    async def session(self, request: Request) -> None:
        """Docker Engine API, Session."""
        _check(request)
        identity = request.headers.get(ID)
        if not identity:
            raise InvalidInput(f"a session needs an id: the header {ID} is missing")
        await self.control.attend(identity, await request.upgrade(), request.headers.getall(METHOD), request.headers.get(KEY) or "")


def _check(request: Request) -> None:
    if (request.upgrade_token or "").lower() != H2C:
        raise InvalidInput(f"{request.path} wants Connection: Upgrade and Upgrade: {H2C}")


def add_routes(router: Router, door: Door) -> None:
    router.add("POST", "/grpc", door.grpc)
    router.add("POST", "/session", door.session)
