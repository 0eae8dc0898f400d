"""Routes of the kubelet's API over TLS with client certificates of the cluster's authority.

Upstream asks the API server whether a caller may use nodes/proxy; here the two kinds of certificate that the cluster's setup gives that
right to are known by what they say: the API server's own client, and system:masters.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from atoll.client.objects import Object
from atoll.engine import Engine
from atoll.errors import AtollError, Conflict, Forbidden, InUse, InvalidInput, NotFound, NotSupported, StatusError, Unavailable
from atoll.http import Limits, MethodNotAllowed, Request, Response, Router, Server, json_response, text_response
from atoll.http.errors import RouteNotFound
from atoll.node.config import NodeConfig
from atoll.node.kubelet_api import logs, portforward, terminals
from atoll.node.pods.model import ContainerState, is_mirror

if TYPE_CHECKING:
    from atoll.node.mirror import MirrorPods
    from atoll.node.pods.kubelet import Kubelet

CLOSE_GRACE_S = 1.0
API_SERVER_USER = "kube-apiserver-kubelet-client"
MASTERS = "system:masters"
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (MethodNotAllowed, 405),
    (RouteNotFound, 404),
    (InvalidInput, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (NotSupported, 501),
    (Unavailable, 503),
)

log = logging.getLogger(__name__)


class KubeletServer:
    """`start` answers the port; `mirror` is set once there are mirror pods."""

    def __init__(self, engine: Engine, kubelet: Kubelet, config: NodeConfig) -> None:
        self._engine = engine
        self._kubelet = kubelet
        self._config = config
        self.mirror: MirrorPods | None = None
        self._router = Router()
        self._server = Server(self._handle, Limits(), on_error)
        add = self._router.add
        add("GET", "/healthz", self._healthz)
        add("GET", "/pods", self._pods)
        add("GET", "/stats/summary", self._stats)
        add("GET", "/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for method in ("GET", "POST"):
            add(method, "/exec/{namespace}/{pod}/{container}", self._exec)
            add(method, "/attach/{namespace}/{pod}/{container}", self._attach)
            add(method, "/portForward/{namespace}/{pod}", self._port_forward)

    async def start(self) -> int:
        """The port of the config, or a free one where another kubelet on this host has it."""
        context = self._config.serving_context()
        try:
            return await self._server.start_tcp("0.0.0.0", self._config.kubelet_port, context)
        except InUse:
            return await self._server.start_tcp("0.0.0.0", 0, context)

    async def close(self) -> None:
        await self._server.close(CLOSE_GRACE_S)

    async def _handle(self, request: Request) -> Response | None:
        certificate = request.peer.certificate
        if certificate is None or not may_call(certificate):
            raise Forbidden("Forbidden (resource=nodes, subresource=proxy): only the API server and administrators may call a kubelet")
        return await self._router(request)

    async def _healthz(self, _: Request) -> Response:
        return text_response("ok")

    async def _pods(self, _: Request) -> Response:
        return json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._kubelet.pods()})

    async def _stats(self, _: Request) -> Response:
        from atoll.node.kubelet_api.stats import summary

        return json_response(await summary(self._engine, self._kubelet, self._config))

    async def _logs(self, request: Request, namespace: str, pod: str, container: str) -> Response:
        found = self._pod(namespace, pod)
        options = logs.LogOptions.parse(request.query)
        if is_mirror(found):
            path = self.mirror.log_of(found) if self.mirror is not None else None
            if path is None:
                raise NotFound(f"mirror pod {pod} has no log here")
            return Response(200, (("Content-Type", "text/plain"),), logs.file_log(path, options))
        state = self._attempt(found, container, previous=options.previous)
        return Response(200, (("Content-Type", "text/plain"),), logs.container_log(self._engine, state.id, options))

    async def _exec(self, request: Request, namespace: str, pod: str, container: str) -> None:
        state = self._running(self._pod(namespace, pod), container)
        await terminals.serve_exec(request, self._engine, state.id)

    async def _attach(self, request: Request, namespace: str, pod: str, container: str) -> None:
        found = self._pod(namespace, pod)
        state = self._running(found, container)
        await terminals.serve_attach(request, self._engine, state.id)

    async def _port_forward(self, request: Request, namespace: str, pod: str) -> None:
        found = self._pod(namespace, pod)
        await portforward.serve(request, self._kubelet.netns(found))

    def _pod(self, namespace: str, name: str) -> Object:
        found = self._kubelet.pod(namespace, name)
        if found is None:
            raise NotFound(f'pod "{name}" does not exist in namespace "{namespace}" on this node')
        return found

    def _attempt(self, pod: Object, container: str, *, previous: bool) -> ContainerState:
        name = pod["metadata"]["name"]
        attempts = self._kubelet.containers(pod).get(container) or []
        if previous:
            attempts = [state for state in attempts[1:] if not state.is_running]
            if not attempts:
                raise InvalidInput(f'previous terminated container "{container}" in pod "{name}" not found')
        if not attempts:
            reason = _waiting_reason(pod, container)
            raise InvalidInput(f'container "{container}" in pod "{name}" is waiting to start: {reason}')
        return attempts[0]

    def _running(self, pod: Object, container: str) -> ContainerState:
        if is_mirror(pod):
            raise InvalidInput(f"pod {pod['metadata']['name']} is a mirror of a process on the node: there is no container to enter")
        for state in self._kubelet.containers(pod).get(container) or []:
            if state.is_running:
                return state
        raise NotFound(f'container not found ("{container}")')


def _waiting_reason(pod: Object, container: str) -> str:
    for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for row in (pod.get("status") or {}).get(name) or ():
            if row["name"] == container and "waiting" in row.get("state", {}):
                waiting = row["state"]["waiting"]
                return str(waiting.get("message") or waiting.get("reason") or "unknown")
    return "ContainerCreating"


@lru_cache(maxsize=64)
def may_call(certificate: bytes) -> bool:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(certificate).subject
    groups = [item.value for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    names = [item.value for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return MASTERS in groups or API_SERVER_USER in names


def on_error(request: Request, error: Exception) -> Response:
    """As plain text, which the API server passes on in its own Status."""
    if isinstance(error, StatusError):
        return json_response(error.status(), error.code)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return text_response(str(error), status)
    if not isinstance(error, AtollError):
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return text_response("internal error of the kubelet: see its log", 500)
    return text_response(str(error), 500)
