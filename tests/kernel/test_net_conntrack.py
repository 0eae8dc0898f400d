"""UDP flows are picked by where they lead, and forgotten."""

from __future__ import annotations

import socket

from atoll.kernel import conntrack, netns
from atoll.kernel.nftables import Nftables
from atoll.kernel.rtnetlink import RouteSocket


def test_forget_udp(instance):
    path = instance.home / "ns"

    def inside():
        with RouteSocket() as route:
            route.set_up(1)
        with Nftables() as nft:  # tracking begins with the first rule that needs it
            nft.run("table ip t { chain o { type nat hook output priority -100; udp dport 53 dnat to 127.0.0.1:5353\n}\n}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 5353))
            for port in (53, 99):
                client.sendto(b"x", ("127.0.0.1", port))
        seen = []

        def is_stale(flow):
            seen.append(flow)
            return flow.port == 53

        assert conntrack.forget_udp(is_stale) == 1
        assert conntrack.Flow("127.0.0.1", 53, "127.0.0.1", 5353) in seen
        assert conntrack.Flow("127.0.0.1", 99, "127.0.0.1", 99) in seen
        assert conntrack.forget_udp(is_stale) == 0

    try:
        netns.create(path, inside)
    finally:
        netns.delete(path)
