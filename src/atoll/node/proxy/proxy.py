"""Keeps the kernel's rules as the plan says: at start wholly, then by differences.

Informers wake it; changes that come together are written together. Whatever it wrote before a crash stays in force until the first full
view of the
cluster has arrived, and is then replaced in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from typing import Any

from atoll.client.factory import InformerFactory
from atoll.client.resources import ENDPOINT_SLICES, SERVICES
from atoll.config import Instance
from atoll.errors import NotFound, SystemFailure
from atoll.kernel import conntrack
from atoll.kernel.nftables import Nftables, NftablesError
from atoll.kernel.rtnetlink import RouteSocket
from atoll.node.proxy.plan import plan
from atoll.node.proxy.ruleset import Ruleset, difference, full, table_name

logger = logging.getLogger(__name__)

Object = dict[str, Any]
_GATHER_S = 0.01  # a rollout changes a service and its slices in quick succession: one transaction for both
_RETRY_S = 1.0


class ServiceProxy:
    """Raises NotSupported where libnftables is missing: services need it."""

    def __init__(self, instance: Instance, *, node_name: str = "", bridges: Sequence[str] = ()) -> None:
        """`bridges` are the links that this node's pods are on."""
        self._table = table_name(instance.id)
        self._node_name = node_name
        self._bridges = bridges
        self._nft = Nftables()
        self._written: Ruleset | None = None

    def close(self) -> None:
        """The rules stay: services go on while the node process is restarted."""
        self._nft.close()

    def destroy(self) -> None:
        """Takes the rules away."""
        self._nft.run(f"table ip {self._table}\ndelete table ip {self._table}\n")
        self._written = None

    def apply(self, services: Iterable[Object], slices: Iterable[Object]) -> bool:
        """Makes the kernel serve these. False where nothing had to change. Raises NftablesError."""
        wanted = plan(services, slices, node_name=self._node_name)
        before, self._written = self._written, None  # unknown, should the transaction fail
        if before is None:
            self._nft.run(full(self._table, wanted, self._bridges))
        elif commands := difference(self._table, before, wanted):
            try:
                self._nft.run(commands)
            except NftablesError as error:
                logger.warning("rules are not as they were left, writing all anew: %s", error)
                self._nft.run(full(self._table, wanted, self._bridges))
        self._written = wanted
        if before == wanted:
            return False
        _forget_flows(before or Ruleset(), wanted)
        return True

    async def run(self, informers: InformerFactory) -> None:
        """Follows the cluster until cancelled; the factory is run by the caller."""
        services, slices = informers.informer(SERVICES), informers.informer(ENDPOINT_SLICES)
        changed = asyncio.Event()
        for informer in (services, slices):
            informer.add_handler(lambda _old, _new: changed.set())
        await services.wait_synced()
        await slices.wait_synced()
        changed.set()
        while True:
            await changed.wait()
            await asyncio.sleep(_GATHER_S)
            changed.clear()
            try:
                self.apply(services.list(), slices.list())
            except NftablesError as error:
                logger.warning("cannot write service rules, trying again: %s", error)
                await asyncio.sleep(_RETRY_S)
                changed.set()


def ensure_service_route(service_cidr: str, bridge: str) -> bool:
    """Makes cluster IPs routable on a host without a default route: the kernel wants a route before it lets the rules rewrite the address.

    False where there is one, and nothing was done. Raises NotFound where there is no such bridge.
    """
    with RouteSocket() as route:
        if route.default_links():
            return False
        link = route.link(bridge)
        if link is None:
            raise NotFound(f"no link {bridge} to route services {service_cidr} by")
        route.add_route(IPv4Network(service_cidr), link.index)
        return True


def _forget_flows(before: Ruleset, after: Ruleset) -> None:
    """A client that keeps its UDP port would go on to a backend that is gone, or be refused by a service that has come back."""
    changed = {door for door in {*before.udp, *after.udp} if before.udp.get(door) != after.udp.get(door)}
    if not changed:
        return

    def is_stale(flow: conntrack.Flow) -> bool:
        for door in ((flow.destination, flow.port), ("", flow.port)):
            if door in changed:
                return (flow.answerer, flow.answerer_port) not in after.udp.get(door, ())
        return False

    try:
        conntrack.forget_udp(is_stale)
    except SystemFailure as error:  # such flows end by themselves, only later
        logger.warning("stale UDP flows stay for now: %s", error)
