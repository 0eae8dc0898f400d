"""The two endpoint controllers: the same watch of services and pods, two shapes of writing."""

from __future__ import annotations

from atoll.client.factory import BY_LABEL, BY_NAMESPACE, BY_NODE
from atoll.client.objects import (
    Object,
    condition_of,
    copy_of,
    is_deleting,
    key_of,
    labels_of,
    make_key,
    name_of,
    namespace_of,
    uid_of,
)
from atoll.client.protocol import is_already_exists, is_not_found
from atoll.client.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from atoll.client.selectors import matches_map
from atoll.controllers.base import Context, Controller
from atoll.controllers.endpoints import slices, subsets
from atoll.controllers.endpoints.backends import ZONE_LABEL, selects
from atoll.controllers.expectations import Expectations
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.errors import StatusError


class _ServiceController(Controller):
    """Keys are services; a pod brings every service that selects it, before or after its change."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.informer(SERVICES, BY_NAMESPACE, handler=self.enqueue)
        self.pods = self.informer(PODS, BY_NAMESPACE, BY_LABEL, BY_NODE, handler=self._pod_changed)

    def selected(self, service: Object, selector: dict[str, str]) -> list[Object]:
        """By the index of one label, then the rest."""
        key, value = next(iter(selector.items()))
        candidates = self.pods.by_index(BY_LABEL, f"{namespace_of(service)}/{key}={value}")
        return [pod for pod in candidates if matches_map(selector, labels_of(pod))]

    def trigger(self, service: Object, pods: list[Object]) -> str | None:
        """When the newest cause happened: the service's creation, or a pod's last change of readiness."""
        times = [service["metadata"].get("creationTimestamp") or ""]
        for pod in pods:
            ready = condition_of(pod, "Ready")
            times.append((ready or {}).get("lastTransitionTime") or "")
        return max(times) or None

    def enqueue_selecting(self, pod: Object) -> None:
        labels = labels_of(pod)
        for service in self.services.by_index(BY_NAMESPACE, namespace_of(pod) or ""):
            selector = selects(service)
            if selector and matches_map(selector, labels):
                self.queue.add(key_of(service))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _shown(old) == _shown(new):
            return
        for pod in (old, new):
            if pod is not None:
                self.enqueue_selecting(pod)


def _shown(pod: Object) -> tuple[object, ...]:
    """All of a pod that endpoints show: most status writes change none of it."""
    status, spec = pod.get("status") or {}, pod["spec"]
    ready = (condition_of(pod, "Ready") or {}).get("status")
    host = (spec.get("hostname"), spec.get("subdomain"), spec.get("nodeName"))
    return (labels_of(pod), ready, is_deleting(pod), status.get("phase"), status.get("podIP"), status.get("podIPs"), host, uid_of(pod))


class EndpointSliceController(_ServiceController):
    name = "endpointslice-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._expectations = Expectations(context.clock)
        self._nodes = self.informer(NODES, handler=self._node_changed)
        self._slices = self.informer(ENDPOINT_SLICES, BY_LABEL, handler=self._slice_changed)

    async def reconcile(self, key: str) -> None:
        service = self.services.get(key)
        if service is None or is_deleting(service):
            self._expectations.forget(key)
            return  # its slices go by their owner reference
        selector = selects(service)
        if selector is None or not self._expectations.satisfied(key):
            return
        pods = self.selected(service, selector)
        nodes = {name_of(node): node for node in self._nodes.list()}
        existing = self._existing(service)
        changes = slices.plan(service, pods, nodes, existing, self.trigger(service, pods))
        self._expectations.expect(key, creations=len(changes.create))
        for done, made in enumerate(changes.create):
            try:
                await self.client.create(ENDPOINT_SLICES, made, namespace_of(service))
            except StatusError as error:
                self._expectations.creation_observed(key, len(changes.create) - done)
                if is_namespace_terminating(error):
                    return
                raise
        for changed in changes.update:
            await self.client.update(ENDPOINT_SLICES, changed)
        for surplus in changes.delete:
            try:
                await self.client.delete(ENDPOINT_SLICES, name_of(surplus), namespace_of(surplus), uid=uid_of(surplus))
            except StatusError as error:
                if not is_not_found(error):
                    raise

    def _existing(self, service: Object) -> list[Object]:
        label = f"{namespace_of(service)}/{slices.SERVICE_LABEL}={name_of(service)}"
        found = self._slices.by_index(BY_LABEL, label)
        return [each for each in found if labels_of(each).get(slices.MANAGED_LABEL) == slices.MANAGER and not is_deleting(each)]

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            if each is not None and labels_of(each).get(slices.MANAGED_LABEL) == slices.MANAGER:
                name = labels_of(each).get(slices.SERVICE_LABEL)
                if name:
                    key = make_key(namespace_of(each), name)
                    if old is None:
                        self._expectations.creation_observed(key)
                    self.queue.add(key)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        """Endpoints carry their node's zone."""
        before = labels_of(old).get(ZONE_LABEL) if old else None
        after = labels_of(new).get(ZONE_LABEL) if new else None
        node = new or old
        if before == after or node is None:
            return
        for pod in self.pods.by_index(BY_NODE, name_of(node)):
            self.enqueue_selecting(pod)


class EndpointsController(_ServiceController):
    name = "endpoints-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._endpoints = self.informer(ENDPOINTS, handler=self.enqueue)

    async def reconcile(self, key: str) -> None:
        service, old = self.services.get(key), self._endpoints.get(key)
        if service is None or is_deleting(service):
            if old is not None and labels_of(old).get(subsets.MANAGED_LABEL) == subsets.MANAGER:
                await self._delete(old)
            return
        selector = selects(service)
        if selector is None:
            return
        pods = self.selected(service, selector)
        made = subsets.make_endpoints(service, pods, old, self.trigger(service, pods))
        if old is None:
            try:
                await self.client.create(ENDPOINTS, made, namespace_of(service))
            except StatusError as error:
                if not (is_already_exists(error) or is_namespace_terminating(error)):
                    raise
        elif (old.get("subsets") or [], labels_of(old)) != (made.get("subsets") or [], labels_of(made)):
            await self.client.update(ENDPOINTS, copy_of(made))

    async def _delete(self, old: Object) -> None:
        try:
            await self.client.delete(ENDPOINTS, name_of(old), namespace_of(old), uid=uid_of(old))
        except StatusError as error:
            if not is_not_found(error):
                raise
