"""The proxy subresource: a request passed on to a pod, to an endpoint of a service, or to a node's kubelet, and its answer back.

Names are `[scheme:]name[:port]`, as `kubectl proxy` users write them. The caller's credentials stay here: what is behind the proxy is
no part of the control plane. Upgraded connections (WebSocket) are spliced. Links inside HTML are not rewritten; redirects to the same host
are.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.services import ready_addresses, slices_of
from atoll.client.addresses import is_special
from atoll.errors import Unavailable
from atoll.http import Client, Request, Response, splice

_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"})
_OURS = _HOP | {"authorization", "host", "content-length", "accept-encoding"}
_SCHEMES = ("http", "https", "")
TIMEOUT_S = 60.0
REFUSAL_MAX = 1 << 20  # what answers an upgrade in its place


class Address(NamedTuple):
    scheme: str
    name: str
    port: str


def parse_name(text: str) -> Address:
    """Raises StatusError 400."""
    parts = text.split(":")
    if len(parts) == 3 and parts[0] in _SCHEMES and parts[1]:
        return Address(parts[0] or "http", parts[1], parts[2])
    if len(parts) <= 2 and parts[0]:
        return Address("http", parts[0], parts[1] if len(parts) == 2 else "")
    raise statuses.bad_request(f'invalid proxy target "{text}": write [scheme:]name[:port]')


def backend(core: Core, call: Call, rng: random.Random) -> str:
    """The base URL of what a pod's or a service's proxy leads to. Raises StatusError 400, 404, 503."""
    address = parse_name(call.name or "")
    item = core.cacher(call.kind).get(f"{call.namespace}/{address.name}")
    if item is None:
        raise statuses.not_found(call.kind, address.name)
    if call.kind.plural == "pods":
        host, port = _pod(item.obj, address)
    else:
        host, port = _endpoint(core, call.namespace or "", item.obj, address, rng)
    if is_special(host):  # as upstream: a proxy is no way to what only this host may reach
        raise statuses.bad_request("address not allowed")
    shown = f"[{host}]" if ":" in host else host
    return f"{address.scheme}://{shown}:{port}"


def _pod(pod: Object, address: Address) -> tuple[str, int]:
    host = (pod.get("status") or {}).get("podIP")
    if not host:
        raise statuses.unavailable(f"pod {address.name} has no address yet")
    ports = [port for container in pod["spec"].get("containers") or () for port in container.get("ports") or ()]
    if not address.port:
        return host, ports[0]["containerPort"] if ports else 80
    for port in ports:
        if port.get("name") == address.port:
            return host, port["containerPort"]
    return host, _number(address.port)


def _endpoint(core: Core, namespace: str, service: Object, address: Address, rng: random.Random) -> tuple[str, int]:
    """From the service's slices; from its Endpoints where it has none, since nobody mirrors them without controllers."""
    ports: list[dict[str, Any]] = (service.get("spec") or {}).get("ports") or []
    chosen = [port for port in ports if address.port in ("", port.get("name"), str(port["port"]))][:1]
    if ports and not chosen:
        raise statuses.unavailable(f'no service port "{address.port}" found for service "{address.name}"')
    name = chosen[0].get("name", "") if chosen else ""
    slices = slices_of(core, namespace, address.name)
    if slices:
        ready = ready_addresses(slices, name)
    else:
        found = core.find("", "v1", "endpoints", address.name, namespace)
        ready = _of_subsets(found.obj.get("subsets") or () if found else (), name)
    if not ready:
        raise statuses.unavailable(f'no endpoints available for service "{address.name}"')
    return rng.choice(ready)


def _of_subsets(subsets: Iterable[Object], port_name: str) -> tuple[tuple[str, int], ...]:
    return tuple(
        (str(each["ip"]), int(port["port"]))
        for subset in subsets
        for each in subset.get("addresses") or ()
        for port in subset.get("ports") or ()
        if port.get("name", "") == port_name
    )


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise statuses.bad_request(f'invalid port "{text}": neither a number nor the name of a port')
    return int(text)


def unverified() -> ssl.SSLContext:
    """For https to pods and services: nobody has said whose certificate it should be, upstream asks for none either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def relay(client: Client, request: Request, depth: int) -> Response | None:
    """Pass the request on; what follows its first `depth` path segments is the path there. `client` is closed at the end."""
    parts = request.path.split("/", depth + 1)
    if len(parts) <= depth + 1:
        await client.close()
        query = request.target[len(request.path) :]
        return Response(301, (("Location", f"{request.path}/{query}"),))
    target = "/" + parts[-1] + request.target[len(request.path) :]
    prefix = request.path[: len(request.path) - len(parts[-1]) - 1]
    try:
        return await pass_on(client, request, target, carried(request), prefix, last=True)
    except Unavailable as error:
        raise statuses.unavailable(f"error trying to reach service: {error}") from None


def carried(request: Request) -> list[tuple[str, str]]:
    """The request's headers that go along: neither those of this connection nor the caller's credentials."""
    passed = ((name, value) for name, value in request.headers.items() if name.lower() not in _OURS)
    return [(name, value) for name, value in passed if not name.lower().startswith("impersonate-")]


async def pass_on(
    client: Client, request: Request, target: str, headers: list[tuple[str, str]], prefix: str = "", *, last: bool = False
) -> Response | None:
    """The answer to the same request for `target`, streamed, or None where the two connections have been joined and have ended.

    Redirects to the same host lead below `prefix`. `last`: the client is closed with the answer. Raises Unavailable.
    """
    try:
        if request.upgrade_token is not None:
            try:
                return await _splice(client, request, target, [*headers, ("Upgrade", request.upgrade_token), ("Connection", "Upgrade")])
            finally:
                if last:
                    await client.close()
        answer = await client.request(request.method, target, headers, await request.body(), TIMEOUT_S)
    except BaseException:
        if last:
            await client.close()
        raise

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in answer:
                yield piece
        finally:
            answer.close()
            if last:
                await client.close()

    kept = [(name, _moved(name, value, prefix)) for name, value in answer.headers.items() if name.lower() not in _HOP | {"content-length"}]
    return Response(answer.status, kept, pieces())


def _moved(name: str, value: str, prefix: str) -> str:
    """A redirect to a path of the same host, as a path through the proxy."""
    return prefix + value if name.lower() == "location" and value.startswith("/") and not value.startswith("//") else value


async def _splice(client: Client, request: Request, target: str, headers: list[tuple[str, str]]) -> Response | None:
    answer, inner = await client.upgrade(request.method, target, headers)
    try:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in ("content-length", "transfer-encoding")]
        if inner is None:
            return Response(answer.status, kept, await answer.read(REFUSAL_MAX))
        outer = await request.upgrade(kept, 101)
        await splice(outer, inner)
        return None
    finally:
        answer.close()
        if inner is not None:
            inner.close()
