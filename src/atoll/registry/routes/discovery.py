"""What is there: the API itself, repositories, tags, referrers."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson

from atoll.http import Request, Response, Router, json_response
from atoll.images.model import OCI_INDEX
from atoll.registry import names
from atoll.registry.errors import Code, Refused
from atoll.registry.store import LIST_MAX, Page, Store


class DiscoveryRoutes:
    def __init__(self, store: Store) -> None:
        self._store = store

    def add_to(self, router: Router) -> None:
        router.add("GET", "/v2", self.base)
        router.add("GET", "/v2/", self.base)
        router.add("GET", "/v2/_catalog", self.catalog)
        router.add("GET", "/v2/{name:path}/tags/list", self.tags)
        router.add("GET", "/v2/{name:path}/referrers/{digest}", self.referrers)

    async def base(self, request: Request) -> Response:
        return json_response({})

    async def catalog(self, request: Request) -> Response:
        count = _count(request)
        page = self._store.repositories(request.query.get("last") or "", count)
        return json_response({"repositories": page.items}, headers=_next(request, page))

    async def tags(self, request: Request, name: str) -> Response:
        count = _count(request)
        page = self._store.tags(names.repository(name), request.query.get("last") or "", count)
        return json_response({"name": name, "tags": page.items}, headers=_next(request, page))

    async def referrers(self, request: Request, name: str, digest: str) -> Response:
        wanted = request.query.get("artifactType") or None
        found = self._store.referrers(names.repository(name), names.digest(digest), wanted, request.query.get("last") or "")
        headers = [("Content-Type", OCI_INDEX)]
        if wanted:
            headers.append(("OCI-Filters-Applied", "artifactType"))
        if found.last:
            headers.append(_link(request, {"artifactType": wanted, "last": found.last}))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [orjson.Fragment(one) for one in found.descriptors]}
        return Response(200, headers, orjson.dumps(index))


def _count(request: Request) -> int:
    """The parameter `n`. Raises Refused PAGINATION_NUMBER_INVALID."""
    text = request.query.get("n")
    if text is None:
        return LIST_MAX
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Refused(Code.PAGINATION_NUMBER_INVALID, f"n={text[:32]!r} is no number of entries", detail={"n": text[:32]})
    return min(int(text), LIST_MAX)


def _next(request: Request, page: Page) -> list[tuple[str, str]]:
    if not page.more or not page.items:
        return []
    return [_link(request, {"n": request.query.get("n"), "last": page.items[-1]})]


def _link(request: Request, query: dict[str, str | None]) -> tuple[str, str]:
    given = {name: value for name, value in query.items() if value}
    return "Link", f'<{request.path}?{urlencode(given)}>; rel="next"'
