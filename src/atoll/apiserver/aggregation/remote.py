"""One APIService that another server serves: requests passed on to an endpoint of its service, in the name of the caller.

The server is told who calls by headers, and believes them for our client certificate (request header authentication, as kube-aggregator
sends it). The caller's own credentials stay here. Connections are kept, one pool an endpoint.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from atoll.apiserver.auth.frontproxy import EXTRA, GROUP, UID, USER
from atoll.apiserver.call import MASTERS, User
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item
from atoll.apiserver.services import Backends, backends, base_of
from atoll.apiserver.streams.relay import carried, pass_on, unverified
from atoll.apiserver.webhook import trusting
from atoll.errors import InvalidInput, StatusError, Unavailable
from atoll.http import Client, Request, Response

AGGREGATOR = User("system:kube-aggregator", (MASTERS,))
ASK_S = 30.0
ANSWER_MAX = 64 * 1024 * 1024  # a list of all there is of a kind in a namespace
CLIENTS_MAX = 64  # endpoints with open connections; beyond, those that came first are let go
_OWN = ("x-remote-", "x-forwarded-for")  # said by us alone
_IN_NAMES = "!#$&'*+^`|"  # what may stand in a header's name beside what quote() leaves alone (RFC 9110, 5.6.2), but for %


class Remote:
    """Made anew for each version of its APIService; `certificate` and `key` are this server's as a front proxy."""

    def __init__(self, core: Core, item: Item, certificate: tuple[Path, Path] | None) -> None:
        self._core = core
        self.name = item.key
        self.spec: Mapping[str, Any] = item.obj["spec"]
        self.group, self.version = self.spec["group"], self.spec["version"]
        service = self.spec["service"]
        self.namespace, self.service, self.port = service["namespace"], service["name"], service.get("port") or 443
        self.conditions: list[Any] = (item.obj.get("status") or {}).get("conditions") or []
        self._certificate = certificate
        self._tls: ssl.SSLContext | None = None
        self._clients: dict[str, Client] = {}

    @property
    def is_available(self) -> bool:
        return any(each["type"] == "Available" and each["status"] == "True" for each in self.conditions)

    def backends(self) -> Backends:
        return backends(self._core, self.namespace, self.service, self.port)

    async def serve(self, request: Request, user: User) -> Response | None:
        """Pass the request on, streams and upgrades included. Raises StatusError 503."""
        if not self.is_available:
            told = next((f": {each.get('reason')}: {each.get('message')}" for each in self.conditions if each["type"] == "Available"), "")
            raise statuses.unavailable(f"service unavailable: the APIService {self.name} is not available{told}")
        headers = [(name, value) for name, value in carried(request) if not name.lower().startswith(_OWN)]
        try:
            client = await self._client()
            return await pass_on(client, request, request.target, [*headers, *identity(user), *_forwarded(request)])
        except (Unavailable, InvalidInput) as error:
            raise statuses.unavailable(f"error trying to reach service: {error}") from None

    async def fetch(self, path: str, accept: str, seconds: float, limit: int) -> tuple[str, int, bytes]:
        """What a GET in our own name answers: URL, status and body. Raises AtollError."""
        client = await self._client()
        async with await client.request("GET", path, [("Accept", accept), *identity(AGGREGATOR)], timeout=seconds) as answer:
            return f"{client.base}{path}", answer.status, await answer.read(limit)

    async def ask(self, method: str, target: str, user: User) -> dict[str, Any]:
        """The object that a request of a part of this process is answered with. Raises StatusError as answered there, else AtollError."""
        client = await self._client()
        headers = [("Accept", "application/json"), *identity(user)]
        async with await client.request(method, target, headers, timeout=ASK_S) as answer:
            body = await answer.read(ANSWER_MAX)
        try:
            obj = orjson.loads(body)
        except orjson.JSONDecodeError:
            obj = None
        if isinstance(obj, dict) and 200 <= answer.status < 300:
            return obj
        if isinstance(obj, dict) and obj.get("kind") == "Status":
            raise StatusError.from_status({**obj, "code": answer.status})
        raise Unavailable(f"{method} {client.base}{target}: the server answered {answer.status} without a Status")

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _client(self) -> Client:
        base = base_of(self._core, self.namespace, self.service, self.port)
        client = self._clients.get(base)
        if client is None:
            if len(self._clients) >= CLIENTS_MAX:
                await self._clients.pop(next(iter(self._clients))).close()
            client = self._clients[base] = Client(base, self._context(), server_hostname=f"{self.service}.{self.namespace}.svc")
        return client

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = unverified() if self.spec.get("insecureSkipTLSVerify") else trusting(self.spec.get("caBundle"))
            if self._certificate is not None:
                context.load_cert_chain(*self._certificate)
            self._tls = context
        return self._tls


def identity(user: User) -> list[tuple[str, str]]:
    """The user as headers; keys of extra are percent-encoded where a header's name could not hold them."""
    headers = [(USER, _bytes(user.name))]
    if user.uid:
        headers.append((UID, _bytes(user.uid)))
    headers += [(GROUP, _bytes(group)) for group in user.groups]
    headers += [(EXTRA + quote(key.lower(), safe=_IN_NAMES), _bytes(value)) for key, values in user.extra.items() for value in values]
    if any("\n" in value or "\r" in value or "\0" in value for _, value in headers):
        raise statuses.bad_request("the user's name, groups or extra hold line breaks: they cannot be told to an aggregated API server")
    return headers


def _bytes(text: str) -> str:
    """Header fields are written as latin-1; what they hold is UTF-8, as Go writes it."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _forwarded(request: Request) -> list[tuple[str, str]]:
    address = request.peer.address.rpartition(":")[0].strip("[]")
    before = ", ".join(request.headers.getall("x-forwarded-for"))
    return [("X-Forwarded-For", f"{before}, {address}" if before else address)] if address else []
