"""Links, addresses and routes by rtnetlink(7).

Each method is one request: it happens wholly or raises SystemFailure naming the object. A veth pair is made, named, enslaved
to its bridge and handed over to the other namespace by a single message.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass
from errno import ENODEV, ENOENT, ESRCH

from atoll.errors import SystemFailure
from atoll.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSocket, attribute, attributes, nested, number, text

IFNAME_MAX = 15  # bytes; IFNAMSIZ less its NUL

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_NET_NS_FD, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 28, 1, 2, 4, 5
_VETH_INFO_PEER = 1
_IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 4, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_IFF_UP = 0x1

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst and src length, tos, table, protocol, scope, type, flags

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    kind: str  # veth, bridge; empty for hardware and lo
    up: bool
    mtu: int
    mac: str
    master: int  # index of the bridge, or 0


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class RouteSocket(NetlinkSocket):
    """Networking of the namespace it was made in."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    # Links

    def create_bridge(self, name: str, *, mac: str | None = None, mtu: int | None = None) -> None:
        """A bridge that is up. Its MAC is fixed by giving one: otherwise it follows its ports, and neighbours' caches go stale."""
        head = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP)
        body = text(_IFLA_IFNAME, name) + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
        self.request(_RTM_NEWLINK, head + body + _common(mac, mtu), flags=NLM_F_CREATE | NLM_F_EXCL, what=f"create bridge {name}")

    def create_veth(
        self, name: str, peer: str, *, peer_netns: int, master: int = 0, peer_mac: str | None = None, mtu: int | None = None
    ) -> None:
        """A pair: `name` here, up, a port of the bridge with index `master` if given; `peer`, still down, in the namespace open at
        `peer_netns`.
        """
        up = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP)
        # The kernel makes the peer first, and opening a veth without its other half is ENOTCONN.
        far = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, peer) + number(_IFLA_NET_NS_FD, peer_netns) + _common(peer_mac, mtu)
        pair = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, far)))
        near = up + text(_IFLA_IFNAME, name) + _common(None, mtu) + pair
        if master:
            near += number(_IFLA_MASTER, master)
        self.request(_RTM_NEWLINK, near, flags=NLM_F_CREATE | NLM_F_EXCL, what=f"create veth pair {name} and {peer}")

    def set_bridge_port(self, name: str, *, hairpin: bool, isolated: bool) -> None:
        """`hairpin` lets a frame leave by the port it came in; `isolated` ports talk to the bridge but not to each other."""
        port = attribute(_IFLA_BRPORT_MODE, bytes([hairpin])) + attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
        info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_SLAVE_KIND, "bridge"), nested(_IFLA_INFO_SLAVE_DATA, port))
        self.request(_RTM_NEWLINK, _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + info, what=f"set up bridge port {name}")

    def set_up(self, index: int) -> None:
        self.request(_RTM_SETLINK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), what=f"set link {index} up")

    def link(self, name: str) -> Link | None:
        """None where there is no such link."""
        try:
            return _parse_link(self.query(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name), what=f"look up link {name}"))
        except SystemFailure as error:
            if error.errno == ENODEV:
                return None
            raise

    def links(self) -> list[Link]:
        return [_parse_link(reply) for reply in self.dump(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0), what="list links")]

    def delete_link(self, name: str) -> bool:
        """False where there was none. Of a veth pair both ends go."""
        try:
            self.request(_RTM_DELLINK, _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name), what=f"delete link {name}")
        except SystemFailure as error:
            if error.errno == ENODEV:
                return False
            raise
        return True

    # Addresses

    def add_address(self, index: int, interface: IPInterface) -> None:
        """Idempotent. IPv6 without duplicate detection, so that it can be bound at once."""
        family, packed = _family(interface), interface.packed
        body = attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
        if interface.version == 4:
            body += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
        else:
            body += number(_IFA_FLAGS, _IFA_F_NODAD)
        head = _ADDRESS.pack(family, interface.network.prefixlen, 0, 0, index)
        self.request(_RTM_NEWADDR, head + body, flags=NLM_F_CREATE | NLM_F_REPLACE, what=f"add address {interface} to link {index}")

    def addresses(self) -> list[tuple[int, IPInterface]]:
        """Link index and address, both families."""
        found: list[tuple[int, IPInterface]] = []
        for reply in self.dump(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), what="list addresses"):
            family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(reply)
            values = attributes(reply, _ADDRESS.size)
            packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if packed and family in (socket.AF_INET, socket.AF_INET6):
                found.append((index, ipaddress.ip_interface(f"{ipaddress.ip_address(packed)}/{prefix}")))
        return found

    # Routes of the main table

    def set_default_route(self, gateway: str, index: int) -> None:
        """Replaces the one that is there."""
        address = ipaddress.ip_address(gateway)
        head = _ROUTE.pack(_family(address), 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
        body = attribute(_RTA_GATEWAY, address.packed) + number(_RTA_OIF, index)
        self.request(_RTM_NEWROUTE, head + body, flags=NLM_F_CREATE | NLM_F_REPLACE, what=f"set default route by {gateway}")

    def delete_default_route(self, version: int = 4) -> bool:
        """That of IPv4 or IPv6; False where there was none."""
        head = _ROUTE.pack(socket.AF_INET if version == 4 else socket.AF_INET6, 0, 0, 0, _RT_TABLE_MAIN, 0, _RT_SCOPE_UNIVERSE, 0, 0)
        try:
            self.request(_RTM_DELROUTE, head, what="delete default route")
        except SystemFailure as error:
            if error.errno in (ESRCH, ENOENT):
                return False
            raise
        return True

    def add_route(self, network: IPNetwork, index: int, *, gateway: str | None = None) -> None:
        """To `network` by link `index`; without `gateway` its hosts are neighbours. Replaces one that is there."""
        scope = _RT_SCOPE_UNIVERSE if gateway else _RT_SCOPE_LINK
        head = _ROUTE.pack(_family(network), network.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0)
        body = attribute(_RTA_DST, network.network_address.packed) + number(_RTA_OIF, index)
        if gateway:
            body += attribute(_RTA_GATEWAY, ipaddress.ip_address(gateway).packed)
        self.request(_RTM_NEWROUTE, head + body, flags=NLM_F_CREATE | NLM_F_REPLACE, what=f"add route to {network}")

    def routes(self) -> list[IPNetwork]:
        """Destinations of the IPv4 main table but the default."""
        return [network for network, _index in self._main_table() if network.prefixlen]

    def default_links(self) -> list[int]:
        """Indexes of the links that IPv4 default routes leave by."""
        return [index for network, index in self._main_table() if not network.prefixlen and index]

    def _main_table(self) -> list[tuple[IPNetwork, int]]:
        found: list[tuple[IPNetwork, int]] = []
        for reply in self.dump(_RTM_GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), what="list routes"):
            _af, prefix, _src, _tos, table, *_ = _ROUTE.unpack_from(reply)
            values = attributes(reply, _ROUTE.size)
            destination = ipaddress.ip_address(values.get(_RTA_DST, bytes(4)))
            if table == _RT_TABLE_MAIN:
                found.append((ipaddress.ip_network(f"{destination}/{prefix}", strict=False), _number(values, _RTA_OIF)))
        return found


def _common(mac: str | None, mtu: int | None) -> bytes:
    return (attribute(_IFLA_ADDRESS, _mac_bytes(mac)) if mac else b"") + (number(_IFLA_MTU, mtu) if mtu else b"")


def _family(value: ipaddress._BaseV4 | ipaddress._BaseV6) -> int:
    return socket.AF_INET if value.version == 4 else socket.AF_INET6


def _parse_link(reply: bytes) -> Link:
    _af, _type, index, flags, _change = _LINK.unpack_from(reply)
    values = attributes(reply, _LINK.size)
    info = attributes(values.get(_IFLA_LINKINFO, b""))
    return Link(
        index,
        values[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        bool(flags & _IFF_UP),
        _number(values, _IFLA_MTU),
        values.get(_IFLA_ADDRESS, b"").hex(":"),
        _number(values, _IFLA_MASTER),
    )


def _number(values: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(values.get(kind, b""), sys.byteorder)
