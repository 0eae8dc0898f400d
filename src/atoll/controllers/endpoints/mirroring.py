"""EndpointSlices from Endpoints that a user writes for a Service without a selector (KEP-0752, EndpointSliceMirroring).

One slice for each subset and address type. A slice is kept while its ports are wanted, else made anew; the older Endpoints stay the truth.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from atoll.client.factory import BY_LABEL
from atoll.client.objects import Object, annotations_of, copy_of, labels_of, make_key, name_of, namespace_of, owner_reference, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from atoll.controllers.base import Context, Controller
from atoll.controllers.endpoints.backends import LAST_CHANGE, selects
from atoll.controllers.endpoints.slices import MANAGED_LABEL, SERVICE_LABEL
from atoll.controllers.expectations import Expectations
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.errors import StatusError

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"  # Endpoints that are somebody's lock
NOT_COPIED = (LAST_CHANGE, "kubectl.kubernetes.io/last-applied-configuration")
MAX_IN_SUBSET = 1000  # kube-controller-manager's --mirroring-max-endpoints-per-subset


class EndpointSliceMirroringController(Controller):
    name = "endpointslicemirroring-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._expectations = Expectations(context.clock)
        self._services = self.informer(SERVICES, handler=self.enqueue)
        self._endpoints = self.informer(ENDPOINTS, handler=self.enqueue)
        self._slices = self.informer(ENDPOINT_SLICES, BY_LABEL, handler=self._slice_changed)

    async def reconcile(self, key: str) -> None:
        service, endpoints = self._services.get(key), self._endpoints.get(key)
        existing = self._existing(key)
        mirrored = service is not None and endpoints is not None and is_mirrored(service, endpoints)
        if not mirrored and not existing:
            self._expectations.forget(key)
            return
        if not self._expectations.satisfied(key):
            return
        wanted = list(slices_of(endpoints)) if mirrored and endpoints is not None else []
        for old in existing:
            new = next((each for each in wanted if _place(each) == _place(old)), None)
            if new is None:
                await self._delete(old)
                continue
            wanted.remove(new)
            if any(_content(old, field) != _content(new, field) for field in ("endpoints", "labels", "annotations")):
                changed = copy_of(old)
                changed["endpoints"] = new["endpoints"]
                changed["metadata"] |= {field: new["metadata"][field] for field in ("labels", "annotations")}
                await self.client.update(ENDPOINT_SLICES, changed)
        if wanted:
            await self._create(key, wanted)

    async def _create(self, key: str, wanted: list[Object]) -> None:
        self._expectations.expect(key, creations=len(wanted))
        for done, made in enumerate(wanted):
            try:
                await self.client.create(ENDPOINT_SLICES, made)
            except StatusError as error:
                self._expectations.creation_observed(key, len(wanted) - done)
                if is_namespace_terminating(error):
                    return
                raise

    async def _delete(self, surplus: Object) -> None:
        try:
            await self.client.delete(ENDPOINT_SLICES, name_of(surplus), namespace_of(surplus), uid=uid_of(surplus))
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _existing(self, key: str) -> list[Object]:
        namespace, _, name = key.partition("/")
        return [each for each in self._slices.by_index(BY_LABEL, f"{namespace}/{SERVICE_LABEL}={name}") if _is_ours(each)]

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            if each is not None and _is_ours(each) and labels_of(each).get(SERVICE_LABEL):
                key = make_key(namespace_of(each), labels_of(each)[SERVICE_LABEL])
                if old is None:
                    self._expectations.creation_observed(key)
                self.queue.add(key)


def is_mirrored(service: Object, endpoints: Object) -> bool:
    """The service has no selector, and the endpoints do not ask to be left alone."""
    if selects(service) is not None or service["spec"].get("type") == "ExternalName":
        return False
    return labels_of(endpoints).get(SKIP_LABEL) != "true" and LEADER not in annotations_of(endpoints)


def slices_of(endpoints: Object) -> Iterator[Object]:
    """What the slices should be, without names."""
    labels = labels_of(endpoints) | {SERVICE_LABEL: name_of(endpoints), MANAGED_LABEL: MANAGER}
    annotations = {name: value for name, value in annotations_of(endpoints).items() if name not in NOT_COPIED}
    metadata: Object = {
        "generateName": f"{name_of(endpoints)}-",
        "namespace": namespace_of(endpoints),
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owner_reference(endpoints, ENDPOINTS)],
    }
    for subset in endpoints.get("subsets") or ():
        by_type: dict[str, list[Object]] = {}
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(field) or ():
                family = f"IPv{ipaddress.ip_address(address['ip']).version}"
                by_type.setdefault(family, []).append(_endpoint(address, ready=ready))
        for family, found in by_type.items():
            yield {
                "apiVersion": ENDPOINT_SLICES.api_version,
                "kind": ENDPOINT_SLICES.kind,
                "metadata": metadata,
                "addressType": family,
                "ports": [_port(port) for port in subset.get("ports") or ()],
                "endpoints": found[:MAX_IN_SUBSET],
            }


def _endpoint(address: Object, *, ready: bool) -> Object:
    made: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field, name in (("hostname", "hostname"), ("nodeName", "nodeName"), ("targetRef", "targetRef")):
        if address.get(field):
            made[name] = address[field]
    return made


def _port(port: Object) -> Object:
    return {
        "name": port.get("name", ""),
        "protocol": port.get("protocol", "TCP"),
        **{k: port[k] for k in ("port", "appProtocol") if k in port},
    }


def _place(each: Object) -> tuple[object, ...]:
    """What a slice cannot change: its address type and, for those who match it to a subset, its ports."""
    return each["addressType"], [sorted(port.items()) for port in each.get("ports") or ()]


def _content(each: Object, field: str) -> object:
    return (each if field == "endpoints" else each["metadata"]).get(field) or {}


def _is_ours(each: Object) -> bool:
    return labels_of(each).get(MANAGED_LABEL) == MANAGER
