"""log, exec, attach and portforward, passed on to the kubelet of the pod's node; proxy, to wherever it leads (`relay`).

The server opens the same kind of connection to the kubelet, over TLS with its own client certificate, and then only moves bytes: WebSocket
and SPDY frames are the business of the two ends. Log is a plain response, streamed through.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

from atoll.apiserver.call import Call
from atoll.apiserver.config import ApiServerConfig
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.streams.relay import backend, parse_name, relay, unverified
from atoll.errors import StatusError, Unavailable
from atoll.http import Client, ClientResponse, Request, Response, splice

KUBELET_PORT = 10_250
STREAMED = frozenset({"log", "exec", "attach", "portforward", "proxy"})
CONNECT_S = 30.0
_NAMESPACED_DEPTH, _CLUSTER_DEPTH = 7, 5  # segments of /api/v1/namespaces/<namespace>/pods/<name>/proxy and /api/v1/nodes/<name>/proxy
ERROR_BODY_MAX = 16 * 1024
_FORWARDED = (
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "x-stream-protocol-version",
)
_RETURNED = ("sec-websocket-accept", "sec-websocket-protocol", "x-stream-protocol-version")
_CHANNELS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))


class Streams:
    def __init__(self, core: Core, config: ApiServerConfig) -> None:
        self._core = core
        self._config = config
        self._tls: ssl.SSLContext | None = None
        self._random = random.SystemRandom()

    async def serve(self, call: Call, rest: tuple[str, ...], request: Request) -> Response | None:
        """Raises StatusError 400 when the pod cannot be reached for what it lacks, 404, 503."""
        if call.subresource != "log":
            await self._core.admission.connect(call, _options(call, request))
        if call.subresource == "proxy":
            return await self._relay(call, request)
        pod = self._core.cacher(call.kind).get(call.key)
        if pod is None:
            raise statuses.not_found(call.kind, call.name or "")
        client = self._kubelet(call, pod.obj)
        where = f"{quote(call.namespace or '')}/{quote(call.name or '')}"
        if call.subresource == "log":
            container = container_of(pod.obj, request.query.get("container"), call.name or "")
            asked = [(name, value) for name, value in request.query.items() if name not in ("container", "insecureSkipTLSVerifyBackend")]
            return await self._log(client, f"/containerLogs/{where}/{quote(container)}?{urlencode(asked)}")
        if call.subresource == "portforward":
            ports = [("port", port) for port in request.query.getall("ports")]
            return await self._tunnel(client, f"/portForward/{where}?{urlencode(ports)}", request)
        container = container_of(pod.obj, request.query.get("container"), call.name or "")
        asked = [("command", word) for word in request.query.getall("command")]
        asked += [
            (theirs, "1")
            for ours, theirs in _CHANNELS
            if request.query.flag(ours, default=ours == "stdout" and "stdout" not in request.query)
        ]
        return await self._tunnel(client, f"/{call.subresource}/{where}/{quote(container)}?{urlencode(asked)}", request)

    def _kubelet(self, call: Call, pod: Object) -> Client:
        """A client of the kubelet of the pod's node."""
        node_name = (pod.get("spec") or {}).get("nodeName")
        if not node_name:
            raise statuses.bad_request(f"pod {call.name} does not have a host assigned")
        node = self._core.find("", "v1", "nodes", node_name)
        if node is None:
            raise statuses.unavailable(f"node {node_name} of pod {call.name} is not known to this cluster")
        return self._of_node(node.obj, node_name)

    async def _relay(self, call: Call, request: Request) -> Response | None:
        if call.kind.plural != "nodes":
            base = backend(self._core, call, self._random)
            return await relay(Client(base, unverified() if base.startswith("https") else None), request, _NAMESPACED_DEPTH)
        address = parse_name(call.name or "")
        node = self._core.find("", "v1", "nodes", address.name)
        if node is None:
            raise statuses.not_found(call.kind, address.name)
        return await relay(self._of_node(node.obj, address.name, address.port), request, _CLUSTER_DEPTH)

    def _of_node(self, node: Object, node_name: str, wanted: str = "") -> Client:
        status = node.get("status") or {}
        addresses = {address["type"]: address["address"] for address in status.get("addresses") or ()}
        address = addresses.get("InternalIP") or addresses.get("Hostname")
        if not address:
            raise statuses.unavailable(f"node {node_name} has no address yet")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or KUBELET_PORT
        if wanted and wanted != str(port):
            raise statuses.bad_request(f"a node's proxy leads to its kubelet, on port {port}: port {wanted} is not for it")
        host = f"[{address}]" if ":" in address else address
        return Client(f"https://{host}:{port}", self._context(), timeout=CONNECT_S)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            config = self._config
            context = ssl.create_default_context(cafile=config.kubelet_ca)
            if config.kubelet_ca is None:
                raise statuses.not_supported("this server was started without a kubelet CA: it cannot reach kubelets")
            if config.kubelet_cert is not None:
                context.load_cert_chain(config.kubelet_cert, config.kubelet_key)
            self._tls = context
        return self._tls

    async def _log(self, client: Client, target: str) -> Response:
        try:
            answer = await client.request("GET", target)
        except Unavailable as error:
            await client.close()
            raise statuses.internal(f"Get {client.base}{target}: {error}") from None
        if answer.status != 200:
            raise await _refused(client, answer)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer:
                    yield piece
            finally:
                answer.close()
                await client.close()

        return Response(200, (("Content-Type", "text/plain"), ("Cache-Control", "no-cache, private")), pieces())

    async def _tunnel(self, client: Client, target: str, request: Request) -> Response | None:
        token = request.upgrade_token
        if token is None:
            raise statuses.bad_request("Upgrade request required")
        forwarded = [("Upgrade", token), ("Connection", "Upgrade")]
        forwarded += [(name, value) for name in _FORWARDED for value in request.headers.getall(name)]
        try:
            answer, inner = await client.upgrade("GET" if token.lower() == "websocket" else "POST", target, forwarded)
        except Unavailable as error:
            await client.close()
            raise statuses.internal(f"error dialing backend: {error}") from None
        if inner is None:
            raise await _refused(client, answer)
        try:
            returned = [(name, value) for name in _RETURNED for value in answer.headers.getall(name)]
            outer = await request.upgrade([("Upgrade", token), ("Connection", "Upgrade"), *returned], 101)
            await splice(outer, inner)
        finally:
            inner.close()
            await client.close()
        return None


def container_of(pod: Object, asked: str | None, name: str) -> str:
    """The container meant; without a name the only one there is. Raises StatusError 400."""
    spec = pod.get("spec") or {}
    listed = {field: [c["name"] for c in spec.get(field) or ()] for field in ("containers", "initContainers", "ephemeralContainers")}
    if asked:
        if not any(asked in names for names in listed.values()):
            raise statuses.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(listed["containers"]) == 1:
        return str(listed["containers"][0])
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(listed['containers'])}]"
    if listed["initContainers"]:
        message += f" or one of the init containers: [{' '.join(listed['initContainers'])}]"
    raise statuses.bad_request(message)


async def _refused(client: Client, answer: ClientResponse) -> StatusError:
    """The kubelet's refusal, in its own words and with its own status."""
    import orjson

    body = (await answer.read())[:ERROR_BODY_MAX]
    await client.close()
    try:
        status = orjson.loads(body)
        if isinstance(status, dict) and status.get("kind") == "Status":
            return StatusError.from_status(status)
    except orjson.JSONDecodeError:
        pass
    text = body.decode("utf-8", "replace").strip() or f"the kubelet answered {answer.status}"
    reasons = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 500: "InternalError"}
    return StatusError(answer.status, reasons.get(answer.status, "InternalError"), text)


def _options(call: Call, request: Request) -> Object:
    """The query as the options object that admission judges."""
    sub = call.kind.subresource(call.subresource)
    assert sub is not None
    options: Object = {"kind": sub.gvk.kind, "apiVersion": sub.gvk.version}
    query = request.query
    options |= {name: True for name in ("stdin", "stdout", "stderr", "tty") if query.flag(name)}
    options |= {name: query.get(name) for name in ("container", "path") if query.get(name)}
    if query.getall("command"):
        options["command"] = query.getall("command")
    if query.getall("ports"):
        options["ports"] = [int(port) for port in query.getall("ports") if port.isdecimal()]
    return options
