"""The one way of every HTTP request: authenticate, route, authorise, decode, serve, encode.

Resource requests become a `Call` and go to the `Api`; what is no resource (discovery, health, version, OpenAPI) to `Site`; streams (log,
exec, attach, portforward, proxy) to `Streams`. Errors become Status objects here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson

from atoll import errors
from atoll.apiserver import parameters
from atoll.apiserver.aggregation.aggregator import Aggregator
from atoll.apiserver.aggregation.remote import Remote
from atoll.apiserver.api import Api
from atoll.apiserver.audit.record import Auditor, Record
from atoll.apiserver.auth.authenticate import Authenticator
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.impersonate import impersonate
from atoll.apiserver.auth.oidc import KeysWanted
from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.call import Call, User, Verb
from atoll.apiserver.compress import COMPRESS_MIN, compress
from atoll.apiserver.encode import LIST_SHAPES, OBJECT_SHAPES, encode_delivery, encode_item, encode_page, encode_watch_error
from atoll.apiserver.fairness.flows import Asked
from atoll.apiserver.fairness.gate import JSON_UNCACHED, Fairness, Flow
from atoll.apiserver.fairness.lane import HEAVY, Lane
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.decode import Decoded, decode
from atoll.apiserver.machinery.items import Item
from atoll.apiserver.machinery.kind import Kind, KindRegistry
from atoll.apiserver.machinery.negotiate import BINARY, PLAIN, PROTOBUF, SERVED, Form, negotiate
from atoll.apiserver.machinery.protobuf_encode import encode_object, is_encodable
from atoll.apiserver.machinery.versions import shown
from atoll.apiserver.machinery.watcher import Delivery
from atoll.apiserver.metrics import Metrics
from atoll.apiserver.route import Target, foreign_attributes, resource_target
from atoll.apiserver.site import Site
from atoll.apiserver.streams.proxy import STREAMED, Streams
from atoll.apiserver.verbs.delete import DeleteOptions
from atoll.apiserver.verbs.patch import Patch, PatchKind
from atoll.apiserver.verbs.read import Page
from atoll.http import BodyTimeout, Disconnected, Request, Response

log = logging.getLogger(__name__)

BODY_MAX = 3 * 1024 * 1024  # upstream's limit on a request body
_PATCHES: dict[str, PatchKind] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_OPENED = ("attach", "exec", "portforward")
_OF_MANY = ("list", "watch", "deletecollection")
_VERBS: dict[str, Verb] = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_BY_CLASS: tuple[tuple[type[errors.AtollError], int, str], ...] = (
    (errors.InvalidInput, 400, "BadRequest"),
    (errors.Unauthenticated, 401, "Unauthorized"),
    (errors.Forbidden, 403, "Forbidden"),
    (errors.NotFound, 404, "NotFound"),
    (errors.Conflict, 409, "Conflict"),
    (errors.LimitExceeded, 413, "RequestEntityTooLarge"),
    (errors.NotSupported, 501, "NotImplemented"),
    (errors.Unavailable, 503, "ServiceUnavailable"),
)


class Seen:
    """What becomes known of a request on its way."""

    __slots__ = ("flow", "record")

    def __init__(self, record: Record | None = None) -> None:
        self.flow: Flow | None = None
        self.record = record


class Pipeline:
    def __init__(
        self,
        registry: KindRegistry,
        api: Api,
        authenticator: Authenticator,
        authorizer: Authorizer,
        site: Site,
        streams: Streams,
        metrics: Metrics,
        fairness: Fairness,
        aggregator: Aggregator,
        auditor: Auditor | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._auditor = auditor
        self._fairness = fairness
        self._lane = Lane()
        self._registry = registry
        self._api = api
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._site = site
        self._streams = streams
        self._metrics = metrics

    async def __call__(self, request: Request) -> Response | None:
        seen = Seen() if self._auditor is None else Seen(self._auditor.begin(request))
        response = await self._answer(request, seen)
        if seen.record is not None:
            seen.record.end(response)
        if response is not None and seen.flow is not None:
            headers, flow = response.headers, seen.flow
            response.headers = flow.json_headers if headers is JSON_UNCACHED else (*headers, *flow.headers)
        self._metrics.requests[request.method, response.status if response is not None else 101] += 1
        if response is not None and type(response.body) is bytes and len(response.body) >= COMPRESS_MIN:
            return await compress(request, response)
        return response

    async def _answer(self, request: Request, seen: Seen) -> Response | None:
        try:
            if "timeout=" not in request.target:
                return await self._serve(request, seen)
            async with asyncio.timeout(parameters.timeout(request.query)):
                return await self._serve(request, seen)
        except TimeoutError:
            return _status_response(statuses.timed_out())
        except errors.StatusError as error:
            return _status_response(error)
        except (Disconnected, BodyTimeout):
            raise
        except errors.AtollError as error:
            code, reason = next(((code, reason) for cls, code, reason in _BY_CLASS if isinstance(error, cls)), (500, "InternalError"))
            return _status_response(errors.StatusError(code, reason, str(error)))
        except RecursionError:
            return _status_response(statuses.bad_request("the object is nested too deeply"))
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return _status_response(statuses.internal("the server met an error it did not expect; its log has the details"))

    async def _serve(self, request: Request, seen: Seen) -> Response | None:
        try:
            user = self._authenticator.authenticate(request)
        except KeysWanted as wanted:
            with contextlib.suppress(errors.Unauthenticated):
                await wanted.issuer.fetch()
            user = self._authenticator.authenticate(request)
        asking, user = user, impersonate(user, request, self._authorizer)
        segments = request.segments
        remote = self._aggregator.find(segments)
        if remote is not None:
            return await self._pass_on(remote, asking, user, request, seen)
        target = resource_target(self._registry, segments) if segments[0] in ("api", "apis") else None
        if target is None:
            return await self._describe(asking, user, request, seen)
        call = self._call(user, request, target)
        if seen.record is not None:
            call.record = seen.record
            seen.record.identify(asking, user, call, call.verb)
        if call.subresource in STREAMED:  # of unknown length: they would hold a seat for ever
            return await self._open(call, request, target)
        flow = self._fairness.masters if user.is_master else None
        if flow is None:
            flow = self._fairness.flow(user, Asked(call.verb, call.face.group, call.face.plural, call.namespace or ""))
        seen.flow = flow
        ticket = None
        if not flow.level.is_exempt:
            seats = 1 if call.verb != "list" else self._fairness.seats(call, parameters.number(request.query, "limit") or 0)
            ticket = flow.level.take(seats) or await flow.level.wait(flow.key, seats)
        try:
            self._authorise(user, Attributes.of(call, request.query.get("fieldSelector") if call.verb in _OF_MANY else None), call.record)
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
        finally:
            if ticket is not None:
                flow.level.give(ticket)

    async def _pass_on(self, remote: Remote, asking: User, user: User, request: Request, seen: Seen) -> Response | None:
        """What another server answers; whether the user may ask is settled here."""
        wanted = foreign_attributes(request)
        if seen.record is not None:
            seen.record.identify(asking, user, None, wanted.verb)
        asked = (
            Asked(wanted.verb, path=request.path) if wanted.path else Asked(wanted.verb, wanted.group, wanted.resource, wanted.namespace)
        )
        flow = seen.flow = self._fairness.flow(user, asked)
        is_long = wanted.verb == "watch" or request.upgrade_token is not None  # it would hold a seat for ever
        ticket = None if flow.level.is_exempt or is_long else flow.level.take(1) or await flow.level.wait(flow.key, 1)
        try:
            self._authorise(user, wanted, seen.record)
            return await remote.serve(request, user)
        finally:
            if ticket is not None:
                flow.level.give(ticket)

    async def _describe(self, asking: User, user: User, request: Request, seen: Seen) -> Response:
        """Answer for a path that names no resource."""
        verb = request.method.lower()
        if seen.record is not None:
            seen.record.identify(asking, user, None, verb)
        flow = seen.flow = self._fairness.flow(user, Asked(verb, path=request.path))
        ticket = None if flow.level.is_exempt else flow.level.take(1) or await flow.level.wait(flow.key, 1)
        try:
            self._authorise(user, Attributes(verb, path=request.path), seen.record)
            return self._site.serve(request)
        finally:
            if ticket is not None:
                flow.level.give(ticket)

    async def _open(self, call: Call, request: Request, target: Target) -> Response | None:
        """A stream. By WebSocket it begins with a GET: a right to read pods is none to run things in them."""
        self._authorise(call.user, Attributes.of(call), call.record)
        if call.verb == "get" and call.subresource in _OPENED:
            self._authorise(call.user, Attributes.of(call)._replace(verb="create"), call.record)
        return await self._streams.serve(call, target.rest, request)

    def _call(self, user: User, request: Request, target: Target) -> Call:
        verb = _VERBS.get(request.method)
        if verb is None or (target.watching and verb != "get"):
            raise statuses.method_not_allowed()
        name, kind = target.name, target.kind
        if not target.subresource:
            if verb == "get" and (target.watching or request.query.flag("watch")):
                verb = "watch"
            elif name is None and verb in ("get", "delete"):
                verb = "list" if verb == "get" else "deletecollection"
            if (verb in ("update", "patch") and name is None) or (verb == "create" and name is not None) or verb not in kind.verbs:
                raise statuses.method_not_allowed()
        else:
            sub = kind.subresource(target.subresource)
            if sub is None or verb not in sub.verbs:
                raise statuses.method_not_allowed()
        call = Call(user, verb, kind, target.namespace, name, target.subresource)
        if kind.storage_group_version:
            stored = self._registry.stored_as(kind)
            if stored is None:
                raise statuses.no_such_path()
            call.kind, call.served = stored, kind
        if kind.deprecation:
            call.warnings.append(kind.deprecation)
        return call

    def _authorise(self, user: User, wanted: Attributes, record: Record | None) -> None:
        allowed = self._authorizer.allows(user, wanted)
        if record is not None and record.is_told:
            record.decided(allowed=allowed, reason=self._authorizer.reason(user, wanted))
        if allowed:
            return
        why = self._authorizer.refusal(user, wanted)
        if wanted.path:
            raise errors.StatusError(403, "Forbidden", f"forbidden: {why}", {})
        plural = wanted.resource.partition("/")[0]
        resource = f"{plural}.{wanted.group}" if wanted.group else plural
        details = {key: value for key, value in (("name", wanted.name), ("group", wanted.group), ("kind", plural)) if value}
        subject = f'{resource} "{wanted.name}"' if wanted.name else resource
        raise errors.StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details)

    async def _read(self, call: Call, request: Request) -> Response:
        include = request.query.get("includeObject") or "Metadata"
        if call.verb == "get":
            form = _form(call, request, OBJECT_SHAPES)
            item = await self._api.get(call, request.query.get("resourceVersion") or "")
            return await self._item(call, item, form, include=include)
        form = _form(call, request, LIST_SHAPES)
        if len(self._api.core.cacher(call.kind)) >= HEAVY:
            await self._lane.turn()
        page = await self._shown(call, await self._api.page(call, parameters.list_options(call, request.query)))
        return _response(encode_page(call.face, page, form, include), form, warnings=call.warnings)

    async def _shown(self, call: Call, page: Page) -> Page:
        return page if call.kind.converter is None else replace(page, items=await shown(call.face, page.items))

    def _watch(self, call: Call, request: Request) -> Response:
        form = _form(call, request, OBJECT_SHAPES | {"PartialObjectMetadataList"})
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
        form = _form(call, request, OBJECT_SHAPES if is_stored else frozenset())
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
        form = _form(call, request, OBJECT_SHAPES)
        options = await self._delete_options(call, request)
        if call.verb == "deletecollection":
            page = await self._api.delete_collection(call, parameters.list_options(call, request.query), options)
            page = await self._shown(call, page)
            return _response(encode_page(call.face, page, form), form)
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
            return _response(encode_item(call.face, item, form, include), form, status, call.warnings)
        if form == BINARY and not is_encodable(item.obj["apiVersion"], item.obj["kind"]):
            form = PLAIN  # as the answer's type tells
        body = encode_object(item.obj) if form == BINARY else item.body
        return _response(body, form, status, call.warnings)


async def _shown_deliveries(kind: Kind, batch: list[Delivery]) -> list[Delivery]:
    items = iter(await shown(kind, [each.item for each in batch if each.item is not None]))
    return [each._replace(item=next(items)) if each.item is not None else each for each in batch]


def _form(call: Call, request: Request, shapes: frozenset[str]) -> Form:
    """What the client wants to have. Raises StatusError 406, before anything is done."""
    kind = call.face
    form = negotiate(request.headers.get("accept"), shapes, binary=kind.builtin)
    if form == BINARY and not is_encodable(kind.api_version, kind.kind):
        raise statuses.not_acceptable(SERVED)
    return form


def _response(body: bytes, form: Form, status: int = 200, warnings: list[str] | None = None) -> Response:
    headers = JSON_UNCACHED if form.media == "json" else (("Content-Type", form.content_type), *JSON_UNCACHED[1:])
    if warnings:
        headers = (*headers, *(("Warning", f"299 - {_quoted(warning)}") for warning in dict.fromkeys(warnings)))
    return Response(status, headers, body)


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() else " " for c in text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _status_response(error: errors.StatusError) -> Response:
    headers = JSON_UNCACHED
    retry = (error.details or {}).get("retryAfterSeconds")
    if retry:
        headers = (*headers, ("Retry-After", str(retry)))
    if error.code == 401:
        headers = (*headers, ("WWW-Authenticate", 'Bearer realm="kubernetes"'))
    return Response(error.code, headers, orjson.dumps(error.status()))
