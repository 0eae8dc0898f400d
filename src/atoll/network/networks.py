"""Networks of an instance, in the shapes and words of the Docker Engine API, and the seats of containers on them.

Every change follows one order: what is wanted goes to disk, then to the kernel; what is taken away leaves the kernel first. So a crash
between the
two leaves a record that the next start finishes or undoes. The kernel's part is synchronous: a veth pair takes less than a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from atoll.config import Instance
from atoll.errors import Conflict, Forbidden, InUse, InvalidInput, SystemFailure
from atoll.kernel import netns as kernel_netns
from atoll.network import endpoint_sysctls, links, rules, views
from atoll.network import ipv6 as ip6
from atoll.network.firewall import Firewall
from atoll.network.model import Endpoint, Network, PortBinding
from atoll.network.names import NameService
from atoll.network.requests import moved_network, network_from_body, predefined_networks, unused_subnet
from atoll.network.seats import Seats
from atoll.network.state import State

logger = logging.getLogger(__name__)

OnEvent = Callable[[str, Network, dict[str, str]], None]  # action (create, connect, disconnect, destroy), network, extra attributes
Views = list[dict[str, Any]]

ENGINE = "engine"  # scope of the engine's own containers


class Networks:
    """`start` first. Methods raise of atoll.errors: NotFound, Conflict, InUse, InvalidInput, Forbidden, NotSupported, SystemFailure."""

    def __init__(self, instance: Instance, *, on_event: OnEvent | None = None, resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        self._instance = instance
        self._on_event: OnEvent = on_event or (lambda _action, _network, _attributes: None)
        self._state = State(instance)
        self._links = links.Links(instance.id)
        self._firewall = Firewall(instance.id)
        self._seats = Seats(instance.id, self._state, self._links, self._firewall, NameService(self._state, resolv_conf))

    async def start(self, live: Collection[str] = (), *, scopes: Mapping[str, Collection[str]] | None = None) -> None:
        """Loads the state, makes what is missing of the predefined networks, and reconciles.

        Endpoints of scope "engine" whose container is not in `live` are taken away; `scopes` says the same of other scopes. Others keep
        their
        address, ports and names; listeners are opened again. What the instance has in the kernel and no record of is deleted.
        """
        self._state.load()
        for scope, ids in {ENGINE: live, **(scopes or {})}.items():
            self._forget_dead(ids, scope)
        await asyncio.to_thread(self._links.delete_strays, self._known_links())
        try:
            links.enable_forwarding()
        except SystemFailure as error:
            logger.warning("%s", error)
        with links.subnet_choice():
            self._settle_networks()
        self._firewall.replace(self._state.networks.values(), self._state.endpoints.values())
        if ip6.is_there() and any(network.subnet6 for network in self._state.networks.values()):
            self._open_ipv6()
        await asyncio.to_thread(self._firewall.open_foreign)
        for endpoint in list(self._state.endpoints.values()):
            await self._seats.reopen(endpoint)

    async def close(self) -> None:
        """Stops serving names and relayed ports. Links and rules stay: containers run on while the engine is restarted."""
        await self._seats.close()
        self._firewall.close()
        self._links.close()

    async def destroy(self) -> None:
        """Takes away all that the instance has in the kernel: links, namespaces, rules. Records of networks stay; call before `close`."""
        for endpoint in list(self._state.endpoints.values()):
            await self._seats.unseat(endpoint)
        for path in self._namespaces():
            kernel_netns.delete(path)
        await asyncio.to_thread(self._links.delete_strays, ())
        for network in self._state.networks.values():
            if network.bridge:
                await asyncio.to_thread(self._links.delete, network.bridge)
        self._firewall.destroy()

    async def reconcile(self, live: Collection[str], *, scope: str = ENGINE) -> None:
        """Takes away endpoints and namespaces of `scope` whose container id is not in `live`."""
        for endpoint in list(self._state.endpoints.values()):
            if endpoint.scope == scope and endpoint.container_id not in live:
                await self._seats.unseat(endpoint)
        for path in self._namespaces(scope):
            if path.name not in live:
                kernel_netns.delete(path)

    # Networks

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST /networks/create's body to {"Id", "Warning"}."""
        with links.subnet_choice():
            network = network_from_body(body, self._state.networks.values(), self._links.host_networks(), self._instance.id)
            if self._links.exists(network.bridge):
                raise Conflict(f"bridge {network.bridge} of network {network.name} exists already: choose another name")
            self._state.put_network(network)
            try:
                self._links.ensure_bridge(network)
                if network.subnet6:
                    self._open_ipv6()
                self._firewall.add(rules.network_elements(network))
            except BaseException:
                self._links.delete(network.bridge)
                self._state.drop_network(network.id)
                raise
        self._on_event("create", network, {})
        return {"Id": network.id, "Warning": unused_subnet(body)}

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Views:
        """GET /networks. Containers are left out of lists, as Docker does since API 1.28."""
        used = {endpoint.network_id for endpoint in self._state.endpoints.values()}
        kept = [network for network in self._state.networks.values() if views.matches(network, filters or {}, in_use=network.id in used)]
        return [views.network_view(network, ()) for network in kept]

    def inspect(self, ref: str) -> dict[str, Any]:
        """GET /networks/{id}."""
        network = self._state.find(ref)
        return views.network_view(network, self._state.on_network(network.id))

    def get(self, ref: str) -> Network:
        """By id, name or unambiguous id prefix; "default" is the bridge."""
        return self._state.find("bridge" if ref == "default" else ref)

    async def remove(self, ref: str) -> Network:
        """Raises Forbidden for a predefined network, InUse while containers are on it."""
        network = self._state.find(ref)
        if network.is_predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        active = list(self._state.on_network(network.id))
        if active:
            who = ", ".join(f'name:"{endpoint.name}" id:"{endpoint.id[:12]}"' for endpoint in active)
            raise InUse(f"error while removing network: network {network.name} has active endpoints ({who})")
        self._firewall.delete(rules.network_elements(network))
        self._state.drop_network(network.id)  # before the wait, lest a container takes a seat meanwhile
        await asyncio.to_thread(self._links.delete, network.bridge)
        self._on_event("destroy", network, {})
        return network

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """POST /networks/prune: {"NetworksDeleted": [names]}."""
        used = {endpoint.network_id for endpoint in self._state.endpoints.values()}
        doomed = [
            network
            for network in self._state.networks.values()
            if views.matches_prune(network, filters or {}) and network.id not in used and not network.is_predefined
        ]
        for network in doomed:
            await self.remove(network.id)
        return {"NetworksDeleted": [network.name for network in doomed]}

    # Namespaces

    async def create_netns(self, container_id: str, *, scope: str = ENGINE) -> Path:
        """A namespace with `lo` up, bind-mounted at run/netns/<scope>/<container_id>. One left by an earlier run gives way."""
        path = self._netns_path(container_id, scope)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kernel_netns.delete(path)
        kernel_netns.create(path, links.new_namespace)
        return path

    async def delete_netns(self, container_id: str, *, scope: str = ENGINE) -> None:
        """Idempotent."""
        kernel_netns.delete(self._netns_path(container_id, scope))

    # Endpoints

    async def attach(
        self,
        container_id: str,
        network: str,
        *,
        netns: Path | None = None,
        name: str = "",
        hostname: str = "",
        aliases: Sequence[str] = (),
        ipv4: str | None = None,
        ipv6: str | None = None,
        mac: str | None = None,
        ports: Sequence[PortBinding] = (),
        priority: int = 0,
        dns: Sequence[str] = (),
        links: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        link_local: Sequence[str] = (),
        names: bool = True,
        scope: str = ENGINE,
    ) -> Endpoint:
        """Seats the container on a network: address, veth pair, routes, ports, names. On failure nothing is left.

        `netns` may be None on "host" and "none" only. `dns` are the container's own upstream servers (--dns) for the embedded name service,
        which `names=False` leaves out; `links` are names that this container alone has for others, alias to name; `options` the endpoint's
        driver options; `link_local` further addresses of the interface. Of a container's networks the first one that is not internal gives
        the default route, unless another's `priority` is higher.
        """
        found = self.get(network)
        mine = self._state.of_container(container_id)
        if any(endpoint.network_id == found.id for endpoint in mine):
            raise Forbidden(f"endpoint with name {name or container_id[:12]} already exists in network {found.name}")
        endpoint = Endpoint(
            id=secrets.token_hex(32),
            network_id=found.id,
            container_id=container_id,
            scope=scope,
            name=name,
            hostname=hostname,
            netns=str(netns or ""),
            aliases=tuple(aliases),
            priority=priority,
            dns=tuple(dns),
            links={alias.lower(): name for alias, name in (links or {}).items()},
            link_local=tuple(_link_local(address) for address in link_local),
        )
        if found.driver == "bridge":
            if netns is None:
                raise InvalidInput(f"container {container_id[:12]} needs a network namespace to join network {found.name}")
            sysctls = endpoint_sysctls.parse(options or {})
            endpoint = await self._seats.seat(endpoint, found, mine, ports, ipv4=ipv4, ipv6_=ipv6, mac=mac, names=names)
            try:
                endpoint_sysctls.apply(sysctls, netns, endpoint.ifname)
            except InvalidInput:
                await self._seats.unseat(endpoint)
                await self._seats.leave(endpoint)
                raise
        else:
            self._state.put_endpoint(endpoint)
        self._on_event("connect", found, {"container": container_id})
        return endpoint

    async def detach(self, container_id: str, network: str) -> None:
        """Raises Forbidden when the container is not on it."""
        found = self.get(network)
        for endpoint in self._state.of_container(container_id):
            if endpoint.network_id == found.id:
                break
        else:
            raise Forbidden(f"container {container_id} is not connected to network {found.name}")
        await self._seats.unseat(endpoint)
        if endpoint.link:
            await self._seats.leave(endpoint)
        self._on_event("disconnect", found, {"container": container_id})

    async def detach_all(self, container_id: str) -> None:
        """Idempotent; for a container that has stopped. Follow with `delete_netns`: the links die with the namespace, which costs the
        caller nothing,
        where deleting one by hand takes 10 to 40 ms.
        """
        for endpoint in self._state.of_container(container_id):
            await self._seats.unseat(endpoint)
            if network := self._state.networks.get(endpoint.network_id):
                self._on_event("disconnect", network, {"container": container_id})
            if endpoint.link:
                self._seats.bury(endpoint.link)

    async def rename(self, container_id: str, name: str) -> None:
        """The new name answers at once; the old one no more."""
        for endpoint in self._state.of_container(container_id):
            self._state.put_endpoint(replace(endpoint, name=name))

    def endpoints(self, container_id: str) -> Sequence[Endpoint]:
        """In order of attachment: eth0 first."""
        return self._state.of_container(container_id)

    def ports(self, container_id: str) -> dict[str, Sequence[dict[str, str]]]:
        """What is published of NetworkSettings.Ports: {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", ...}]}."""
        return dict(views.ports_view(self._state.of_container(container_id)))

    # Inside

    def _open_ipv6(self) -> None:
        try:
            ip6.enable_forwarding()
        except SystemFailure as error:
            logger.warning("%s", error)
        self._firewall.replace6(self._state.networks.values(), self._state.endpoints.values())

    def _settle_networks(self) -> None:
        """Makes the predefined networks and every bridge; a network nobody is on gives way where its subnet has become somebody else's."""
        host = self._links.host_networks()
        for network in predefined_networks(self._state.networks.values(), host, self._instance.id):
            self._state.put_network(network)
        used = {endpoint.network_id for endpoint in self._state.endpoints.values()}
        for network in list(self._state.networks.values()):
            settled = network if network.id in used else moved_network(network, self._state.networks.values(), host)
            if settled != network:
                logger.warning("network %s moves from %s to %s, which is free", network.name, network.subnet, settled.subnet)
                self._links.delete(network.bridge)
                self._state.put_network(settled)
            if settled.bridge:
                self._links.ensure_bridge(settled)

    def _forget_dead(self, live: Collection[str], scope: str) -> None:
        for endpoint in list(self._state.endpoints.values()):
            if endpoint.scope == scope and endpoint.container_id not in live:
                self._state.drop_endpoint(endpoint.id)
        for path in self._namespaces(scope):
            if path.name not in live:
                kernel_netns.delete(path)

    def _known_links(self) -> set[str]:
        bridges = {network.bridge for network in self._state.networks.values()}
        return bridges | {endpoint.link for endpoint in self._state.endpoints.values()}

    def _netns_path(self, container_id: str, scope: str) -> Path:
        if not container_id or "/" in container_id or container_id.startswith("."):
            raise InvalidInput(f"invalid container id {container_id!r}")
        return self._instance.run / "netns" / scope / container_id

    def _namespaces(self, scope: str = "*") -> Sequence[Path]:
        return sorted((self._instance.run / "netns").glob(f"{scope}/*"))


def _link_local(address: str) -> str:
    """Raises InvalidInput for what is no IPv4 address of that range."""
    try:
        if IPv4Address(address) in links.LINK_LOCAL:
            return address
    except ValueError:
        pass
    raise InvalidInput(f"invalid link-local address {address!r}: it must lie in {links.LINK_LOCAL}")
