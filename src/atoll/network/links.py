"""Bridges and the veth pairs that seat containers on them.

Names carry the instance's id, so that strays are found by name alone: bridges `at<id>...`, bridge ports `v<id>...`; 15 bytes is all the
kernel allows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

from atoll.errors import AtollError, SystemFailure
from atoll.kernel import netns
from atoll.kernel.rtnetlink import RouteSocket
from atoll.network import ipam, ipv6
from atoll.network.model import Endpoint, Network
from atoll.network.rules import OPTION_ICC

OPTION_BRIDGE_NAME = "com.docker.network.bridge.name"
OPTION_MTU = "com.docker.network.driver.mtu"
DEFAULT_MTU = 1500  # bytes; Ethernet's, and Docker's
_SYSCTL = Path("/proc/sys/net")


LINK_LOCAL = IPv4Network("169.254.0.0/16")  # RFC 3927


def bridge_prefix(instance_id: str) -> str:
    return f"at{instance_id}"


def bridge_name(instance_id: str, network_id: str) -> str:
    return f"at{instance_id}{network_id[:5]}"


def default_bridge_name(instance_id: str) -> str:
    return f"at{instance_id}0"


def port_name(instance_id: str, endpoint_id: str) -> str:
    return f"v{instance_id}{endpoint_id[:6]}"


def new_namespace() -> None:
    """What every new namespace starts with; runs inside it. IPv6 stays on for lo alone until a network has it: a bridge without must not
    become a side road.
    """
    _write(_SYSCTL / "ipv6/conf/default/disable_ipv6", "1")
    _write(_SYSCTL / "ipv4/ip_unprivileged_port_start", "0")  # Docker's defaults since 20.10: what is inside is the container's own
    _write(_SYSCTL / "ipv4/ping_group_range", "0 2147483647")
    with RouteSocket() as inside:
        inside.set_up(1)  # lo is always the first link


class Links:
    """Acts on the host's namespace; each method is idempotent. Raises SystemFailure."""

    def __init__(self, instance_id: str) -> None:
        self._id = instance_id
        self._route = RouteSocket()
        self._mtus: dict[str, int] = {}  # by network id

    def close(self) -> None:
        self._route.close()

    def host_networks(self) -> list[IPv4Network]:
        """What the host has routes or addresses in: nothing of it may become a container network."""
        mine = {link.index for link in self._route.links() if link.name.startswith(bridge_prefix(self._id))}
        owned = {interface.network for index, interface in self._route.addresses() if index in mine}
        networks = {*self._route.routes(), *(interface.network for _index, interface in self._route.addresses())}
        return [network for network in networks - owned if isinstance(network, IPv4Network)]

    def ensure_bridge(self, network: Network) -> None:
        """Makes it, its address and its settings, where they are missing."""
        gateway, subnet = IPv4Address(network.gateway), IPv4Network(network.subnet)
        link = self._route.link(network.bridge)
        if link is None:
            self._route.create_bridge(network.bridge, mac=ipam.mac_of(gateway), mtu=self.mtu(network))
            link = self._route.link(network.bridge)
            if link is None:
                raise AtollError(f"bridge {network.bridge} of network {network.name} was taken away by another program while it was made")
        elif link.kind != "bridge":
            raise AtollError(f"network {network.name} cannot use link {network.bridge}: it exists and is no bridge")
        settings = _SYSCTL / "ipv6/conf" / network.bridge
        _write(settings / "accept_ra", "0")  # a container must not configure the host's IPv6 (CVE-2020-13401)
        if not network.subnet6:
            _write(settings / "disable_ipv6", "1")
        _write(_SYSCTL / "ipv4/conf" / network.bridge / "route_localnet", "1")  # published ports answer on 127.0.0.1; rules guard it
        self._route.add_address(link.index, IPv4Interface(f"{gateway}/{subnet.prefixlen}"))
        if network.subnet6 and ipv6.is_there():
            ipv6.switch_on(network.bridge)
            self._route.add_address(link.index, IPv6Interface(f"{network.gateway6}/{IPv6Network(network.subnet6).prefixlen}"))
        self._route.set_up(link.index)

    def seat(self, network: Network, endpoint: Endpoint, *, is_way_out: bool, is_way_out6: bool) -> None:
        """Makes the veth pair between bridge and container, and inside the addresses and, if wanted, the default routes. On failure nothing
        is left.
        """
        bridge = self._route.link(network.bridge)
        if bridge is None:
            self.ensure_bridge(network)
            bridge = self._route.link(network.bridge)
        try:
            fd = os.open(endpoint.netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SystemFailure(f"open network namespace {endpoint.netns}", error.errno or 0) from error
        try:
            self._route.create_veth(
                endpoint.link,
                endpoint.ifname,
                peer_netns=fd,
                master=bridge.index if bridge else 0,
                peer_mac=endpoint.mac,
                mtu=self.mtu(network),
            )
        finally:
            os.close(fd)
        try:
            self._route.set_bridge_port(endpoint.link, hairpin=True, isolated=not network.option_true(OPTION_ICC, default=True))
            with netns.call(Path(endpoint.netns), lambda: _inside(endpoint)) as inside:
                link = inside.link(endpoint.ifname)
                if link is None:
                    raise AtollError(
                        f"{endpoint.ifname} of container {endpoint.name or endpoint.container_id[:12]} vanished while it was set up"
                    )
                inside.set_up(link.index)
                inside.add_address(link.index, IPv4Interface(f"{endpoint.address}/{endpoint.prefix}"))
                for address in endpoint.link_local:
                    inside.add_address(link.index, IPv4Interface(f"{address}/{LINK_LOCAL.prefixlen}"))
                if is_way_out:
                    inside.set_default_route(endpoint.gateway, link.index)
                if endpoint.address6:
                    inside.add_address(link.index, IPv6Interface(f"{endpoint.address6}/{endpoint.prefix6}"))
                if is_way_out6:
                    inside.set_default_route(endpoint.gateway6, link.index)
        except BaseException:
            self._route.delete_link(endpoint.link)
            raise

    def set_default_routes(self, namespace: str, endpoint: Endpoint | None, endpoint6: Endpoint | None) -> None:
        """Gives the container `endpoint`'s gateway as the way out, and `endpoint6`'s for IPv6, or none."""
        with netns.call(Path(namespace), RouteSocket) as inside:
            for way, version in ((endpoint, 4), (endpoint6, 6)):
                link = inside.link(way.ifname) if way else None
                if way and link:
                    inside.set_default_route(way.gateway if version == 4 else way.gateway6, link.index)
                else:
                    inside.delete_default_route(version)

    def exists(self, name: str) -> bool:
        return self._route.link(name) is not None

    def delete(self, name: str) -> None:
        """Takes 10 to 40 ms: for a thread, so with a socket of its own."""
        with RouteSocket() as route:
            route.delete_link(name)

    def delete_strays(self, keep: Collection[str]) -> list[str]:
        """Deletes every link of the instance whose name is not in `keep`; answers the names."""
        prefixes = (bridge_prefix(self._id), port_name(self._id, ""))
        with RouteSocket() as route:
            strays = [link.name for link in route.links() if link.name.startswith(prefixes) and link.name not in keep]
            return [name for name in strays if route.delete_link(name)]

    def mtu(self, network: Network) -> int:
        """The network's option, or the smallest of the links the host leaves by: a larger one would lose packets wherever path discovery
        fails.
        """
        if OPTION_MTU in network.options:
            return int(network.options[OPTION_MTU])
        out = set(self._route.default_links())
        return min([link.mtu for link in self._route.links() if link.index in out] + [DEFAULT_MTU]) if out else DEFAULT_MTU


def _inside(endpoint: Endpoint) -> RouteSocket:
    """Runs inside the container's namespace, where a link is born without IPv6."""
    if endpoint.address6:
        ipv6.switch_on(endpoint.ifname)
    return RouteSocket()


@contextlib.contextmanager
def subnet_choice() -> Iterator[None]:
    """Holds off other instances between looking at what subnets are taken and taking one: a moment's lock on the directory of links."""
    fd = os.open("/sys/class/net", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def enable_forwarding() -> None:
    """Turns the host into a router between containers and the world. Raises SystemFailure."""
    path = _SYSCTL / "ipv4/ip_forward"
    if path.read_text(encoding="ascii").strip() != "1":
        try:
            path.write_text("1", encoding="ascii")
        except OSError as error:
            raise SystemFailure("set net.ipv4.ip_forward, without which containers reach nothing outside", error.errno or 0) from error


def bridge_netfilter() -> bool:
    """Whether packets that only cross a bridge pass the IP hooks (br_netfilter)."""
    with contextlib.suppress(OSError):
        return (_SYSCTL / "bridge/bridge-nf-call-iptables").read_text(encoding="ascii").strip() == "1"
    return False


def _write(path: Path, value: str) -> None:
    """Sysctls that a kernel may lack (no IPv6) or forbid (inside another container) are left as they are."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
