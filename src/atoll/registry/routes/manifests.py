"""Manifests by tag or digest: HEAD, GET, PUT, DELETE."""

from __future__ import annotations

import asyncio
import hashlib

from atoll.http import Request, Response, Router
from atoll.registry import manifests, names
from atoll.registry.errors import Code, Refused
from atoll.registry.routes.blobs import matches
from atoll.registry.store import Store

TAGS_MAX = 100  # `tag` parameters of one push; the specification wants ten


class ManifestRoutes:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add_to(self, router: Router) -> None:
        router.add("GET", "/v2/{name:path}/manifests/{reference}", self.get)
        router.add("PUT", "/v2/{name:path}/manifests/{reference}", self.put)
        router.add("DELETE", "/v2/{name:path}/manifests/{reference}", self.delete)

    async def get(self, request: Request, name: str, reference: str) -> Response:
        manifest = self._store.manifest(names.repository(name), _checked(reference))
        headers = [
            ("Content-Type", manifest.media_type),
            ("Docker-Content-Digest", manifest.digest),
            ("ETag", f'"{manifest.digest}"'),
        ]
        if matches(request, manifest.digest):
            return Response(304, headers)
        return Response(200, headers, manifest.body)

    async def put(self, request: Request, name: str, reference: str) -> Response:
        """By tag, or by digest with any number of `tag` parameters."""
        repository = names.repository(name)
        tags = [names.tag(tag) for tag in request.query.getall("tag")]
        if len(tags) > TAGS_MAX:
            raise Refused(Code.TAG_INVALID, f"{len(tags)} tags at once: at most {TAGS_MAX}")
        by_digest = names.is_digest_reference(_checked(reference))
        body = await request.body(manifests.BODY_MAX)
        algorithm = names.algorithm_of(reference) if by_digest else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        if by_digest and digest != reference:
            raise Refused(Code.DIGEST_INVALID, f"the manifest is in truth {digest}", detail={"digest": reference})
        document = manifests.read(body, request.headers.get("content-type"))
        names_given = tags if by_digest else [reference, *tags]
        await asyncio.to_thread(self._store.put_manifest, repository, digest, body, document, names_given)
        headers = [("Location", f"/v2/{repository}/manifests/{digest}"), ("Docker-Content-Digest", digest)]
        if document.subject:
            headers.append(("OCI-Subject", document.subject))
        headers += [("OCI-Tag", tag) for tag in tags]
        return Response(201, headers)

    async def delete(self, request: Request, name: str, reference: str) -> Response:
        """A tag alone, or a manifest with all its tags."""
        by_digest = names.is_digest_reference(_checked(reference))
        act = self._store.delete_manifest if by_digest else self._store.delete_tag
        await asyncio.to_thread(act, names.repository(name), reference)
        return Response(202)


def _checked(reference: str) -> str:
    return names.digest(reference) if names.is_digest_reference(reference) else names.tag(reference)
