"""Seats a container on a network and takes it off again: every part of an endpoint, in an order that a crash cannot spoil.

The record goes to disk first and leaves it last, so that whatever stands in the kernel has one; the next start finishes or undoes what
was cut short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from atoll.errors import Conflict, InvalidInput, SystemFailure
from atoll.kernel import conntrack
from atoll.network import ipam, ipv6, rules
from atoll.network.firewall import Firewall
from atoll.network.links import Links, port_name
from atoll.network.model import Endpoint, Network, PortBinding, PublishedPort
from atoll.network.names import NameService
from atoll.network.ports import Ports
from atoll.network.requests import check_mac
from atoll.network.state import State

logger = logging.getLogger(__name__)

_BURIAL_S = 1.0  # links die with their namespace in some 50 ms; one that is still there after this is deleted by hand


class Seats:
    """Owns the ports, the name service and the burials of links."""

    def __init__(self, instance_id: str, state: State, links: Links, firewall: Firewall, names: NameService) -> None:
        self._id = instance_id
        self._state = state
        self._links = links
        self._firewall = firewall
        self._names = names
        self._ports = Ports(self._owner)
        self._burials: set[asyncio.Task[None]] = set()

    def _owner(self, port: PublishedPort) -> str:
        return next((endpoint.name for endpoint in self._state.endpoints.values() if port in endpoint.ports), "")

    async def close(self) -> None:
        await self._names.close()
        self._ports.close()
        for burial in list(self._burials):
            burial.cancel()
        await asyncio.gather(*self._burials, return_exceptions=True)

    async def seat(
        self,
        endpoint: Endpoint,
        network: Network,
        mine: Sequence[Endpoint],
        bindings: Sequence[PortBinding],
        *,
        ipv4: str | None,
        ipv6_: str | None,
        mac: str | None,
        names: bool,
    ) -> Endpoint:
        """Completes and makes the endpoint; `mine` are the container's others. On failure nothing is left."""
        endpoint = self._addressed(endpoint, network, mine, ipv4, ipv6_, mac, names=names)
        try:
            reserved = self._ports.reserve(() if network.internal else bindings, endpoint.address)
        except Conflict as error:
            who = f"{endpoint.name or endpoint.container_id[:12]} ({endpoint.id})"
            raise Conflict(f"driver failed programming external connectivity on endpoint {who}: {error}") from error
        endpoint = replace(endpoint, ports=tuple(port for port, _held in reserved))
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._ports.release, reserved)
            self._state.put_endpoint(endpoint)
            undo.callback(self._state.drop_endpoint, endpoint.id)
            seats = [*mine, endpoint]
            self._links.seat(network, endpoint, is_way_out=_way_out(seats) is endpoint, is_way_out6=_way_out6(seats) is endpoint)
            undo.callback(self._links.delete, endpoint.link)
            self._firewall.add(rules.endpoint_elements(endpoint))
            undo.callback(self._firewall.delete, rules.endpoint_elements(endpoint))
            undo.callback(self._ports.stop, endpoint.id, endpoint.ports)
            await self._ports.start(reserved, endpoint)
            await self._names.add(endpoint)
            undo.pop_all()
        _forget_udp_flows(endpoint)
        return endpoint

    async def reopen(self, endpoint: Endpoint) -> None:
        """After a restart of the engine: holds the ports and serves the names again."""
        held = self._ports.hold_again(endpoint.ports, endpoint.address)
        await self._ports.start(held, endpoint)
        try:
            await self._names.add(endpoint)
        except SystemFailure as error:
            logger.warning("container %s has no name service: %s", endpoint.container_id[:12], error)

    async def unseat(self, endpoint: Endpoint) -> None:
        """Gives back all but the link."""
        await self._names.remove(endpoint)
        self._ports.stop(endpoint.id, endpoint.ports)
        self._firewall.delete(rules.endpoint_elements(endpoint))
        self._state.drop_endpoint(endpoint.id)
        _forget_udp_flows(endpoint)

    async def leave(self, endpoint: Endpoint) -> None:
        """Takes the link of an unseated endpoint from a container that runs on, and finds it another way out."""
        await asyncio.to_thread(self._links.delete, endpoint.link)
        left = self._state.of_container(endpoint.container_id)
        self._links.set_default_routes(endpoint.netns, _way_out(left), _way_out6(left))

    def bury(self, link: str) -> None:
        """Sees to it that the link goes, with its namespace or without."""
        burial = asyncio.ensure_future(self._bury(link))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _bury(self, link: str) -> None:
        await asyncio.sleep(_BURIAL_S)
        if self._links.exists(link):
            await asyncio.to_thread(self._links.delete, link)

    def _addressed(
        self,
        endpoint: Endpoint,
        network: Network,
        mine: Sequence[Endpoint],
        ipv4: str | None,
        ipv6_: str | None,
        mac: str | None,
        *,
        names: bool,
    ) -> Endpoint:
        if (ipv4 or ipv6_) and network.is_predefined:
            raise InvalidInput("user specified IP address is supported on user defined networks only")
        if mac:
            check_mac(mac)
        address = ipam.allocate(network, {other.address for other in self._state.on_network(network.id)}, ipv4 or None)
        address6 = ipv6.allocate(network, {other.address6 for other in self._state.on_network(network.id)}, ipv6_)
        taken = {other.ifname for other in mine}
        return replace(
            endpoint,
            ifname=next(name for name in map("eth{}".format, range(len(taken) + 1)) if name not in taken),
            link=port_name(self._id, endpoint.id),
            mac=mac.lower().replace("-", ":") if mac else ipam.mac_of(address),
            address=str(address),
            prefix=IPv4Network(network.subnet).prefixlen,
            gateway="" if network.internal else network.gateway,
            has_names=names and network.has_names,
            address6=str(address6 or ""),
            prefix6=IPv6Network(network.subnet6).prefixlen if address6 else 0,
            gateway6="" if network.internal else network.gateway6,
        )


def _way_out(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint of the highest priority that has a gateway; of equals the first, which is eth0."""
    return max((endpoint for endpoint in endpoints if endpoint.gateway), key=lambda endpoint: endpoint.priority, default=None)


def _way_out6(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    return max((endpoint for endpoint in endpoints if endpoint.gateway6), key=lambda endpoint: endpoint.priority, default=None)


def _forget_udp_flows(endpoint: Endpoint) -> None:
    """Senders who began before the port was published, or go on after it was taken back, are led by the new rules."""
    ports = {port.host_port: port.container_port for port in endpoint.ports if port.protocol == "udp"}
    if not ports:
        return
    try:
        conntrack.forget_udp(lambda flow: flow.port in ports)
    except SystemFailure as error:  # such flows end by themselves, only later
        logger.warning("stale UDP flows of %s stay for now: %s", endpoint.name or endpoint.container_id[:12], error)
