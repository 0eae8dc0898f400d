"""The one way of every HTTP request: authenticate, route, authorise, decode, serve, encode.

Resource requests become a `Call` and go to `Exchange`; what is no resource (discovery, health, version, OpenAPI) to `Site`; streams (log,
exec, attach, portforward, proxy) to `Streams`. Errors become Status objects here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from atoll import errors
from atoll.apiserver import parameters
from atoll.apiserver.aggregation.aggregator import Aggregator
from atoll.apiserver.aggregation.remote import Remote
from atoll.apiserver.answers import tell
from atoll.apiserver.api import Api
from atoll.apiserver.audit.record import Auditor, Record
from atoll.apiserver.auth.authenticate import Authenticator
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.impersonate import impersonate
from atoll.apiserver.auth.oidc import KeysWanted
from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.call import Call, User, Verb
from atoll.apiserver.compress import COMPRESS_MIN, compress
from atoll.apiserver.exchange import Exchange
from atoll.apiserver.fairness.flows import Asked
from atoll.apiserver.fairness.gate import JSON_UNCACHED, Fairness, Flow
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.metrics import Metrics
from atoll.apiserver.route import Target, foreign_attributes, resource_target
from atoll.apiserver.site import Site
from atoll.apiserver.streams.proxy import STREAMED, Streams
from atoll.http import BodyTimeout, Disconnected, Request, Response

log = logging.getLogger(__name__)

_OPENED = ("attach", "exec", "portforward")
_OF_MANY = ("list", "watch", "deletecollection")
_VERBS: dict[str, Verb] = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


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
        self._exchange = Exchange(api)
        self._registry = registry
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
            return tell(statuses.timed_out())
        except (Disconnected, BodyTimeout):
            raise
        except errors.AtollError as error:
            return tell(error)
        except RecursionError:
            return tell(statuses.bad_request("the object is nested too deeply"))
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return tell(statuses.internal("the server met an error it did not expect; its log has the details"))

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
            return await self._exchange.serve(call, request)
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
