"""Forgets UDP flows that connection tracking holds to an answer that is no longer right.

A UDP flow has no end that the kernel could see: a client that keeps its port keeps the translation of its first packet for minutes after
the rules have
changed. TCP needs none of this, a new connection is a new flow. By ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOENT

from atoll.errors import SystemFailure
from atoll.kernel.netlink import NetlinkSocket, attribute, attributes

_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 0x0101, 0x0102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_...
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NLA_F_NESTED = 0x8000
_NFGEN = bytes([socket.AF_INET, 0, 0, 0])  # struct nfgenmsg: family, version, resource id


@dataclass(frozen=True, slots=True)
class Flow:
    """Where the client sends to, and who answers: the same where nothing was translated."""

    destination: str
    port: int
    answerer: str
    answerer_port: int


def forget_udp(is_stale: Callable[[Flow], bool]) -> int:
    """Deletes the IPv4 UDP flows of this namespace that `is_stale` picks; answers how many. Raises SystemFailure."""
    deleted = 0
    with NetlinkSocket(_NETLINK_NETFILTER) as connection:
        for reply in connection.dump(_CT_GET, _NFGEN, what="list tracked connections"):
            values = attributes(reply, len(_NFGEN))
            original = values.get(_CTA_TUPLE_ORIG, b"")
            flow = _flow(original, values.get(_CTA_TUPLE_REPLY, b""))
            if flow is None or not is_stale(flow):
                continue
            try:
                connection.request(_CT_DELETE, _NFGEN + attribute(_CTA_TUPLE_ORIG | _NLA_F_NESTED, original), what=f"forget {flow}")
            except SystemFailure as error:
                if error.errno != ENOENT:  # it ended by itself
                    raise
            deleted += 1
    return deleted


def _flow(original: bytes, reply: bytes) -> Flow | None:
    """None unless it is UDP over IPv4."""
    parts = []
    for data, address, port in ((original, _CTA_IP_V4_DST, _CTA_PROTO_DST_PORT), (reply, _CTA_IP_V4_SRC, _CTA_PROTO_SRC_PORT)):
        values = attributes(data)
        host = attributes(values.get(_CTA_TUPLE_IP, b"")).get(address)
        protocol = attributes(values.get(_CTA_TUPLE_PROTO, b""))
        if host is None or len(host) != 4 or protocol.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]) or port not in protocol:
            return None
        parts.append((str(ipaddress.IPv4Address(host)), int.from_bytes(protocol[port], "big")))
    return Flow(*parts[0], *parts[1])
