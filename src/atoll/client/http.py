"""The `Client` protocol over HTTPS: JSON both ways, watches as lines of JSON.

Answers of 400 and above become StatusError, made from the Status the server sends; a server that cannot be reached, or goes away in the
middle, is Unavailable. A watch asks the server to end it after some minutes, and gives up itself a little later, so that a connection
that died without a word is noticed.
"""

from __future__ import annotations

import asyncio
import random
import ssl as tls
from collections.abc import AsyncIterator, Callable
from typing import Any, Self
from urllib.parse import urlencode

import orjson

from atoll.client.kubeconfig import Access
from atoll.client.objects import Object, name_of, namespace_of
from atoll.client.protocol import PatchKind, Propagation, WatchEvent
from atoll.client.resources import Resource
from atoll.errors import StatusError, Unavailable
from atoll.http import Client as Transport
from atoll.http import ClientResponse, Disconnected

WATCH_S = 300  # client-go asks for 5 to 10 minutes, at random, so that watches do not all end together
WATCH_GRACE_S = 30  # for the server to end it first
LINE_MAX = 32 * 1024 * 1024  # bytes of one event; etcd's own limit of an object is 1.5 MB
USER_AGENT = "atoll"
PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class HttpClient:
    """A `Client` of the server at `server`. `token` may be a function, asked for each request, so that a rotated token is used."""

    def __init__(
        self,
        server: str,
        ssl: tls.SSLContext | None = None,
        token: str | Callable[[], str] | None = None,
        *,
        user_agent: str = USER_AGENT,
        server_name: str | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        headers = (("Accept", "application/json"), ("User-Agent", user_agent))
        self._transport = Transport(server, ssl, headers, server_hostname=server_name)
        self._token = token
        self._jitter = jitter

    @classmethod
    def from_access(cls, access: Access, *, user_agent: str = USER_AGENT) -> Self:
        return cls(access.server, access.ssl_context(), access.token, user_agent=user_agent, server_name=access.server_name)

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": limit,
            "continue": continue_,
            "resourceVersion": resource_version,
        }
        return await self._call("GET", resource.path(namespace), query)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
    ) -> AsyncIterator[WatchEvent]:
        seconds = timeout_seconds or int(WATCH_S * (1 + self._jitter()))
        query = {
            "watch": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "allowWatchBookmarks": "true" if bookmarks else None,
            "timeoutSeconds": seconds,
        }
        deadline = asyncio.get_running_loop().time() + seconds + WATCH_GRACE_S
        response = await self._request("GET", resource.path(namespace), query)
        try:
            await _raise_for_status(response)
            async for line in _lines(response, deadline):
                event = _event(line)
                if event["type"] == "ERROR":
                    raise StatusError.from_status(event["object"])
                yield event["type"], event["object"]
        finally:
            response.close()

    async def create(
        self, resource: Resource, obj: Object, namespace: str | None = None, *, name: str | None = None, subresource: str | None = None
    ) -> Object:
        where = namespace or (obj.get("metadata") or {}).get("namespace")
        return await self._call("POST", resource.path(where, name, subresource), body=obj)

    async def update(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        return await self._call("PUT", resource.path(namespace_of(obj), name_of(obj), subresource), body=obj)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        field_manager: str | None = None,
        force: bool = False,
    ) -> Object:
        query = {"fieldManager": field_manager, "force": "true" if force else None}
        return await self._call("PATCH", resource.path(namespace, name, subresource), query, patch, PATCH_TYPES[kind])

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        preconditions = {field: value for field, value in (("uid", uid), ("resourceVersion", resource_version)) if value is not None}
        if preconditions:
            options["preconditions"] = preconditions
        return await self._call("DELETE", resource.path(namespace, name), body=options)

    async def delete_collection(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str | None = None, field_selector: str | None = None
    ) -> Object:
        return await self._call("DELETE", resource.path(namespace), {"labelSelector": label_selector, "fieldSelector": field_selector})

    async def _call(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, content_type: str = "application/json"
    ) -> Object:
        response = await self._request(method, path, query, body, content_type)
        try:
            await _raise_for_status(response)
            answer: Object = orjson.loads(await response.read())
        except Disconnected as error:
            raise Unavailable(f"{self._transport.base} broke off its answer to {method} {path}") from error
        except orjson.JSONDecodeError as error:
            raise Unavailable(f"{self._transport.base} answered {method} {path} with something else than JSON") from error
        finally:
            response.close()
        return answer

    async def _request(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, content_type: str = "application/json"
    ) -> ClientResponse:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        headers = []
        if self._token is not None:
            headers.append(("Authorization", f"Bearer {self._token() if callable(self._token) else self._token}"))
        data = b""
        if body is not None:
            headers.append(("Content-Type", content_type))
            data = orjson.dumps(body)
        return await self._transport.request(method, f"{path}?{urlencode(given)}" if given else path, headers, data)


async def _raise_for_status(response: ClientResponse) -> None:
    if response.status < 400:
        return
    data = await response.read()
    try:
        status = orjson.loads(data)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        raise StatusError.from_status(status)
    text = data[:1000].decode(errors="replace").strip() or "the server gave no reason"
    raise StatusError(response.status, _REASONS.get(response.status, "Unknown"), text)


def _event(line: bytes) -> Object:
    try:
        event: Object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"the watch sent a line that is not JSON: {line[:100]!r}") from error
    return event


async def _lines(response: ClientResponse, deadline: float) -> AsyncIterator[bytes]:
    """Whole lines as they come. Ends when the server ends the response; Unavailable when it breaks off or stays silent past the
    deadline.
    """
    rest = b""
    pieces = aiter(response)
    try:
        while True:
            async with asyncio.timeout_at(deadline):
                piece = await anext(pieces, None)
            if piece is None:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line:
                    yield line
            if len(rest) > LINE_MAX:
                raise Unavailable(f"a watch event has more than {LINE_MAX} bytes")
    except Disconnected as error:
        raise Unavailable(f"the watch broke off: {error}") from error
    except TimeoutError:
        raise Unavailable("the watch is silent although its time is over") from None
