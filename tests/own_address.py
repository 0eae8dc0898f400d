"""An address of this host that is not loopback, whether or not the machine has a network: on a bridge of its own without ports.

Endpoints may not be loopback addresses; what a test serves behind a service listens here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from ipaddress import ip_interface

from atoll.kernel.rtnetlink import RouteSocket


@contextlib.contextmanager
def own_address(name: str = "own") -> Iterator[str]:
    """`name` tells several of one process apart."""
    link, address = f"at{name}{os.getpid()}", f"198.51.100.{1 + os.getpid() % 254}"  # TEST-NET-2, RFC 5737
    with RouteSocket() as route:
        route.create_bridge(link)
        try:
            made = route.link(link)
            assert made is not None
            route.add_address(made.index, ip_interface(f"{address}/32"))
            route.set_up(made.index)
            yield address
        finally:
            route.delete_link(link)
