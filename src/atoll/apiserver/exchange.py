"""A resource request that may be served: its body decoded, its verb called, what comes of it encoded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from atoll import errors
from atoll.apiserver import parameters
from atoll.apiserver.answers import form_of, respond
from atoll.apiserver.api import Api
from atoll.apiserver.call import Call
from atoll.apiserver.encode import LIST_SHAPES, OBJECT_SHAPES, encode_delivery, encode_item, encode_page, encode_watch_error
from atoll.apiserver.fairness.gate import JSON_UNCACHED
from atoll.apiserver.fairness.lane import HEAVY, Lane
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.decode import Decoded, decode
from atoll.apiserver.machinery.items import Item
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.negotiate import BINARY, PLAIN, PROTOBUF, Form
from atoll.apiserver.machinery.protobuf_encode import encode_object, is_encodable
from atoll.apiserver.machinery.versions import shown
from atoll.apiserver.machinery.watcher import Delivery
from atoll.apiserver.verbs.delete import DeleteOptions
from atoll.apiserver.verbs.patch import Patch, PatchKind
from atoll.apiserver.verbs.read import Page
from atoll.http import Request, Response

BODY_MAX = 3 * 1024 * 1024  # upstream's limit on a request body
_PATCHES: dict[str, PatchKind] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


class Exchange:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._lane = Lane()

    async def serve(self, call: Call, request: Request) -> Response:
        """Raises StatusError."""
        if call.verb in ("get", "list"):
            return await self._read(call, request)
        if call.verb == "watch":
            return self._watch(call, request)
        parameters.write_options(call, request.query)
        if not call.field_manager and call.verb != "patch":
            call.field_manager = (request.headers.get("user-agent") or "").partition("/")[0]
        if call.verb in ("delete", "deletecollection"):
            return await self._delete(call, request)
        return await self._write(call, request)

    async def _read(self, call: Call, request: Request) -> Response:
        include = request.query.get("includeObject") or "Metadata"
        if call.verb == "get":
            form = form_of(call, request, OBJECT_SHAPES)
            item = await self._api.get(call, request.query.get("resourceVersion") or "")
            return await self._item(call, item, form, include=include)
        form = form_of(call, request, LIST_SHAPES)
        if len(self._api.core.cacher(call.kind)) >= HEAVY:
            await self._lane.turn()
        page = await self._shown(call, await self._api.page(call, parameters.list_options(call, request.query)))
        return respond(encode_page(call.face, page, form, include), form, warnings=call.warnings)

    async def _shown(self, call: Call, page: Page) -> Page:
        return page if call.kind.converter is None else replace(page, items=await shown(call.face, page.items))

    def _watch(self, call: Call, request: Request) -> Response:
        form = form_of(call, request, OBJECT_SHAPES | {"PartialObjectMetadataList"})
        plan = parameters.watch_plan(call, request.query)
        include = request.query.get("includeObject") or "Metadata"
        deliveries = self._api.watch(call, plan)

        async def lines() -> AsyncIterator[bytes]:
            first = True
            try:
                async for batch in deliveries:
                    parts = []
                    if call.kind.converter is not None:
                        batch = await _shown_deliveries(call.face, batch)  # noqa: PLW2901  # the same deliveries
                    for delivery in batch:
                        parts.append(encode_delivery(call.face, delivery, form, include, first))
                        first = False
                    yield b"".join(parts)
            except errors.StatusError as error:
                yield encode_watch_error(error, form)

        headers = JSON_UNCACHED if form != BINARY else (("Content-Type", f"{PROTOBUF};stream=watch"), *JSON_UNCACHED[1:])
        return Response(200, headers, lines())

    async def _write(self, call: Call, request: Request) -> Response:
        content_type = request.headers.get("content-type") or ""
        kind = _PATCHES.get(content_type.partition(";")[0].strip()) if call.verb == "patch" else None
        if call.verb == "patch" and kind is None:
            raise statuses.unsupported_media_type(
                f"the body of the request was in an unknown format - accepted media types include: {', '.join(_PATCHES)}"
            )
        # A review, a binding, an eviction: what is answered and not stored has no table.
        is_stored = "list" in call.kind.verbs and not (call.verb == "create" and call.subresource)
        form = form_of(call, request, OBJECT_SHAPES if is_stored else frozenset())
        decoded = await self._body(call, request, content_type)
        if call.verb == "create":
            item = await self._api.create(call, decoded.value, decoded.duplicates)
            return await self._item(call, item, form, 201)
        if call.verb == "update":
            return await self._item(call, await self._api.update(call, decoded.value, decoded.duplicates), form)
        assert kind is not None
        patch = Patch(kind, decoded.value, request.query.flag("force"), decoded.duplicates)
        item, created = await self._api.patch(call, patch)
        return await self._item(call, item, form, 201 if created else 200)

    async def _delete(self, call: Call, request: Request) -> Response:
        form = form_of(call, request, OBJECT_SHAPES)
        options = await self._delete_options(call, request)
        if call.verb == "deletecollection":
            page = await self._api.delete_collection(call, parameters.list_options(call, request.query), options)
            page = await self._shown(call, page)
            return respond(encode_page(call.face, page, form), form)
        item, _ = await self._api.delete(call, options)
        return await self._item(call, item, form)

    async def _delete_options(self, call: Call, request: Request) -> DeleteOptions:
        body: dict[str, object] = {}
        if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
            decoded = await self._body(call, request, request.headers.get("content-type") or "application/json")
            if not isinstance(decoded.value, dict):
                raise statuses.bad_request("the body must be a DeleteOptions object")
            body = dict(decoded.value)
        if body.get("dryRun"):
            call.dry_run = True
        query = request.query
        grace = parameters.number(query, "gracePeriodSeconds")
        if grace is not None:
            body.setdefault("gracePeriodSeconds", grace)
        if query.get("propagationPolicy"):
            body.setdefault("propagationPolicy", query.get("propagationPolicy"))
        if query.get("orphanDependents"):
            body.setdefault("orphanDependents", query.flag("orphanDependents"))
        return DeleteOptions.parse(body)

    async def _body(self, call: Call, request: Request, content_type: str) -> Decoded:
        body = await request.body(BODY_MAX)
        if not body:
            raise statuses.bad_request("the request has no body")
        decoded = decode(body, content_type, find_duplicates=call.field_validation != "Ignore")
        if call.record is not None:
            call.record.took(decoded.value)
        return decoded

    async def _item(self, call: Call, item: Item, form: Form, status: int = 200, include: str = "Metadata") -> Response:
        # What is not stored (a Scale, a review, a Status) has no table and no other version.
        if call.kind.converter is not None and item.key:
            [item] = await shown(call.face, [item])
        if item.key:
            return respond(encode_item(call.face, item, form, include), form, status, call.warnings)
        if form == BINARY and not is_encodable(item.obj["apiVersion"], item.obj["kind"]):
            form = PLAIN  # as the answer's type tells
        body = encode_object(item.obj) if form == BINARY else item.body
        return respond(body, form, status, call.warnings)


async def _shown_deliveries(kind: Kind, batch: list[Delivery]) -> list[Delivery]:
    items = iter(await shown(kind, [each.item for each in batch if each.item is not None]))
    return [each._replace(item=next(items)) if each.item is not None else each for each in batch]
