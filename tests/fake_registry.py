"""A registry that serves one image, well or as badly as a test likes, to a store in the same process."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from atoll.config import Instance
from atoll.http import Request, Response, Server, json_response
from atoll.images import ImageStore
from atoll.images.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Platform, sha256
from atoll.images.registry_session import RegistrySettings
from image_harness import tar_of

LAYER_TAR = tar_of(("f", bytes(range(256)) * 4000))
LAYER = gzip.compress(LAYER_TAR, 0)
CONFIG = json.dumps({"architecture": Platform.of_host().architecture, "os": "linux", "rootfs": {"diff_ids": [sha256(LAYER_TAR)]}}).encode()


def pointer(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def manifest(**changes: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": pointer(CONFIG, OCI_CONFIG),
        "layers": [pointer(LAYER, f"{OCI_LAYER}+gzip")],
    }
    return json.dumps({**value, **changes}).encode()


class Fake:
    """Serves one image well; tests replace `answer` to serve it badly."""

    def __init__(self) -> None:
        self.manifest = manifest()
        self.blobs = {sha256(LAYER): LAYER, sha256(CONFIG): CONFIG}
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Response | None] = lambda request: None
        self.address = ""

    async def handle(self, request: Request) -> Response:
        self.requests.append(request)
        special = self.answer(request)
        if special is not None:
            return special
        match request.segments:
            case ("v2",) | ("v2", ""):
                return json_response({})
            case ("v2", "app", "manifests", _):
                return Response(200, [("Content-Type", OCI_MANIFEST)], self.manifest)
            case ("v2", "app", "blobs", digest) if digest in self.blobs:
                return self.blob(request, self.blobs[digest])
        return json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, 404)

    def blob(self, request: Request, data: bytes) -> Response:
        wanted = request.headers.get("range")
        if wanted is None:
            return Response(200, [], data)
        at = int(wanted.removeprefix("bytes=").rstrip("-"))
        return Response(206, [("Content-Range", f"bytes {at}-{len(data) - 1}/{len(data)}")], data[at:])

    def ranges(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests if request.segments[-1] == sha256(LAYER)]


def with_fake(
    instance: Instance, work: Callable[[Any, ImageStore], Awaitable[Any]], make: Callable[[], Fake] = Fake, **settings: Any
) -> Any:
    async def main() -> Any:
        fake = make()
        server = Server(fake.handle)
        port = await server.start_tcp("127.0.0.1", 0)
        fake.address = f"127.0.0.1:{port}"
        store = ImageStore(
            instance, settings=RegistrySettings(**{key: tuple(one.format(port=port) for one in value) for key, value in settings.items()})
        )
        store.open()
        try:
            return await work(fake, store)
        finally:
            store.close()
            await server.close()

    return asyncio.run(main())


def leaves_nothing(store: ImageStore) -> bool:
    return (
        not store.all()
        and not list(store.blobs.all())
        and not list((store._root / "tmp").iterdir())
        and not list((store._root / "l").iterdir())
        and not list((store._root / "partial").iterdir())
    )


def cut(data: bytes, at: int) -> AsyncIterator[bytes]:
    async def pieces():
        yield data[:at]
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    return pieces()
