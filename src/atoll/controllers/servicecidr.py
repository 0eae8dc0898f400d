"""ServiceCIDRs: ready as soon as they are seen, and kept while addresses are taken from them (KEP-1880).

A range that is being deleted is given out from no more; it goes when its last IPAddress has, or when another range has them all.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from atoll.client.objects import Object, is_deleting, key_of, name_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import IP_ADDRESSES, SERVICE_CIDRS
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import condition, put
from atoll.errors import StatusError
from atoll.units import timestamp_seconds

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_KEPT = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


class ServiceCIDRController(Controller):
    name = "service-cidr-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._ranges = self.informer(SERVICE_CIDRS, handler=self._range_changed)
        self._addresses = self.informer(IP_ADDRESSES, handler=self._address_changed)

    async def reconcile(self, key: str) -> None:
        found = self._ranges.get(key)
        if found is None:
            return
        finalizers = found["metadata"].get("finalizers") or []
        try:
            if not is_deleting(found):
                if FINALIZER not in finalizers:
                    await self._set_finalizers(found, [*finalizers, FINALIZER])
                await self._tell(found, "True", "", "Kubernetes Service CIDR is ready")
            elif FINALIZER in finalizers:
                if await self._is_needed(found):
                    await self._tell(found, "False", "Terminating", _KEPT)
                else:
                    await self._set_finalizers(found, [each for each in finalizers if each != FINALIZER])
        except StatusError as error:
            if not is_not_found(error):
                raise

    async def _is_needed(self, going: Object) -> bool:
        """Asked of the server: an address may have been taken a moment ago."""
        others = [
            net for each in self._ranges.list() if name_of(each) != name_of(going) and not is_deleting(each) for net in _networks(each)
        ]
        taken = [ip_address(name_of(each)) for each in (await self.client.list(IP_ADDRESSES))["items"]]
        mine = _networks(going)
        return any(any(address in net for net in mine) and not any(address in net for net in others) for address in taken)

    async def _set_finalizers(self, found: Object, finalizers: list[str]) -> None:
        metadata = {"resourceVersion": found["metadata"]["resourceVersion"], "finalizers": finalizers or None}
        await self.client.patch(SERVICE_CIDRS, name_of(found), {"metadata": metadata})

    async def _tell(self, found: Object, status: str, reason: str, message: str) -> None:
        present = (found.get("status") or {}).get("conditions") or []
        conditions = put(present, condition("Ready", status, reason, message, timestamp_seconds(self.clock())))
        if conditions != present:
            await self.client.patch(SERVICE_CIDRS, name_of(found), {"status": {"conditions": conditions}}, subresource="status")

    def _range_changed(self, old: Object | None, new: Object | None) -> None:
        self.enqueue(old, new)
        self._look_at_the_going()

    def _address_changed(self, _: Object | None, new: Object | None) -> None:
        if new is None:
            self._look_at_the_going()

    def _look_at_the_going(self) -> None:
        for each in self._ranges.list():
            if is_deleting(each):
                self.queue.add(key_of(each))


def _networks(found: Object) -> list[IPv4Network | IPv6Network]:
    return [ip_network(cidr) for cidr in (found.get("spec") or {}).get("cidrs") or ()]
