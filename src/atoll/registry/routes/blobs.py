"""Blobs by digest: HEAD, GET with ranges, DELETE."""

from __future__ import annotations

import asyncio

from atoll.http import Request, Response, Router
from atoll.registry import names, ranges
from atoll.registry.download import read
from atoll.registry.ranges import Part
from atoll.registry.store import Store


class BlobRoutes:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add_to(self, router: Router) -> None:
        router.add("GET", "/v2/{name:path}/blobs/{digest}", self.get)
        router.add("DELETE", "/v2/{name:path}/blobs/{digest}", self.delete)

    async def get(self, request: Request, name: str, digest: str) -> Response:
        blob = self._store.blob(names.repository(name), names.digest(digest))
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", digest),
            ("ETag", f'"{digest}"'),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", "max-age=31536000, immutable"),
        ]
        if matches(request, digest):
            return Response(304, headers)
        part = ranges.asked(request.headers.get("range"), blob.size)
        status = 200
        if part is not None:
            status = 206
            headers.append(("Content-Range", f"bytes {part.start}-{part.start + part.length - 1}/{blob.size}"))
        else:
            part = Part(0, blob.size)
        headers.append(("Content-Length", str(part.length)))
        return Response(status, headers, b"" if request.method == "HEAD" else read(blob.path, part))

    async def delete(self, request: Request, name: str, digest: str) -> Response:
        await asyncio.to_thread(self._store.delete_blob, names.repository(name), names.digest(digest))
        return Response(202)


def matches(request: Request, digest: str) -> bool:
    """Whether the client says that it has the content already (RFC 9110, 13.1.2)."""
    return any(tag.removeprefix("W/") == f'"{digest}"' for tag in request.headers.tokens("if-none-match"))
