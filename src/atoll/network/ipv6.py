"""The IPv6 half of a network: its subnet, its addresses, and what the host must be for it.

A subnet nobody chose is a unique local one (RFC 4193): 40 bits that only this instance has, 16 that count its networks.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from atoll.errors import Conflict, Forbidden, InvalidInput, NotSupported, SystemFailure, Unavailable
from atoll.network.model import Network

SYSCTL = Path("/proc/sys/net/ipv6")
_SMALLEST = 126  # a prefix with room for a gateway and a container


def is_there() -> bool:
    """Whether this kernel has IPv6: a network may have been made under another."""
    return SYSCTL.exists()


def network_fields(
    config: Mapping[str, Any], auxiliary: Mapping[str, str], networks: Collection[Network], instance_id: str
) -> dict[str, Any]:
    """What a Network has of IPv6, from the configuration asked for. Raises InvalidInput, Forbidden, NotSupported, Unavailable."""
    if not is_there():
        raise NotSupported(f"this machine's kernel has no IPv6 ({SYSCTL} is not there): create the network without --ipv6")
    taken = [IPv6Network(network.subnet6) for network in networks if network.subnet6]
    if config.get("Subnet"):
        subnet = _subnet(str(config["Subnet"]))
        overlapping = next((other for other in taken if subnet.overlaps(other)), None)
        if overlapping:
            raise Forbidden(f"invalid pool request: Pool overlaps with other one on this address space: {subnet} and {overlapping}")
    elif config.get("Gateway") or config.get("IPRange"):
        raise InvalidInput("invalid IPAM configuration: a gateway or an address range needs its subnet")
    else:
        subnet = choose_subnet(instance_id, taken)
    within = _subnet(str(config["IPRange"])) if config.get("IPRange") else None
    if within is not None and not within.subnet_of(subnet):
        raise InvalidInput(f"no matching subnet for range {within}: the subnet is {subnet}")
    gateway = parse_address(str(config["Gateway"])) if config.get("Gateway") else subnet[1]
    reserved = {"gateway": gateway, **{f"aux-address {name}": parse_address(address) for name, address in auxiliary.items()}}
    for name, address in reserved.items():
        if address not in subnet:
            raise InvalidInput(f"no matching subnet for {name} {address}: the subnet is {subnet}")
    return {
        "subnet6": str(subnet),
        "gateway6": str(gateway),
        "ip_range6": str(within or ""),
        "auxiliary6": {name: str(parse_address(address)) for name, address in auxiliary.items()},
    }


def choose_subnet(instance_id: str, taken: Collection[IPv6Network]) -> IPv6Network:
    """The instance's first /64 that no network has. Raises Unavailable."""
    own = bytes([0xFD]) + hashlib.sha256(instance_id.encode()).digest()[:5]
    for subnet in IPv6Network((own + bytes(10), 48)).subnets(new_prefix=64):
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Unavailable("all IPv6 subnets of this instance are taken: remove networks you no longer need, or give --subnet")


def allocate(network: Network, taken: Collection[str], wanted: str | None) -> IPv6Address | None:
    """`wanted`, or the lowest free address; None where the network has no IPv6. Raises InvalidInput, Conflict (taken) or Unavailable."""
    if not network.subnet6:
        if wanted:
            raise InvalidInput(
                f"invalid endpoint settings: network {network.name} has no IPv6, so --ip6 {wanted} cannot be given: use --ipv6"
            )
        return None
    subnet = IPv6Network(network.subnet6)
    reserved = {network.gateway6, *network.auxiliary6.values()}
    if wanted:
        address = parse_address(wanted)
        if address not in subnet or address == subnet.network_address:  # the subnet's routers answer to that one (RFC 4291, 2.6.1)
            raise InvalidInput(f"invalid endpoint settings: no configured subnet contains IP address {wanted}: {network.name} is {subnet}")
        if str(address) in taken or str(address) in reserved:
            raise Conflict(f"Address already in use: {wanted} on network {network.name}")
        return address
    within = IPv6Network(network.ip_range6 or network.subnet6)
    first = int(within.network_address) + (within.network_address == subnet.network_address)
    for number in range(first, int(within.broadcast_address) + 1):
        address = IPv6Address(number)
        if str(address) not in taken and str(address) not in reserved:
            return address
    raise Unavailable(f"no available IPv6 addresses on network {network.name} ({within})")


def parse_address(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError as error:
        raise InvalidInput(f"invalid IPv6 address: {text!r}") from error


def enable_forwarding() -> None:
    """A router takes no advertisements (RFC 4861, 6.2.7), so links by which the host has learnt its own way out are told to go on.

    Raises SystemFailure.
    """
    path = SYSCTL / "conf/all/forwarding"
    if not is_there() or path.read_text(encoding="ascii").strip() == "1":
        return
    for link in (SYSCTL / "conf").iterdir():
        with contextlib.suppress(OSError):  # it went away
            if (link / "accept_ra").read_text(encoding="ascii").strip() == "1":
                (link / "accept_ra").write_text("2", encoding="ascii")
    try:
        path.write_text("1", encoding="ascii")
    except OSError as error:
        raise SystemFailure("set net.ipv6.conf.all.forwarding, without which IPv6 reaches nothing outside", error.errno or 0) from error


def switch_on(link: str) -> None:
    """IPv6 of one link, whose namespace the caller is in; no neighbour may configure it (CVE-2020-13401). Raises SystemFailure.

    Its own address is of use at once: it comes of a MAC that we chose, and a search for doubles would hold up the first two seconds.
    """
    settings = SYSCTL / "conf" / link
    try:
        (settings / "accept_ra").write_text("0", encoding="ascii")
        (settings / "accept_dad").write_text("0", encoding="ascii")
        (settings / "disable_ipv6").write_text("0", encoding="ascii")
    except OSError as error:
        raise SystemFailure(f"switch IPv6 on for link {link}", error.errno or 0) from error


def _subnet(text: str) -> IPv6Network:
    try:
        subnet = IPv6Network(text, strict=False)
    except ValueError as error:
        raise InvalidInput(f"invalid IPv6 subnet {text!r}: write for instance fd00:1::/64") from error
    if subnet.prefixlen > _SMALLEST:
        raise InvalidInput(f"subnet {subnet} is too small for a gateway and a container: use /{_SMALLEST} or larger")
    return subnet
