"""Subnets for networks and addresses for endpoints.

Pure functions over what is taken: the truth about addresses is the endpoints themselves, so that there is no second book to fall out of
step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from atoll.errors import Conflict, Forbidden, InvalidInput, Unavailable
from atoll.network.model import Network

# Docker's local scope pools, in its order: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in sixteenths.
_POOLS = (*(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)), *IPv4Network("192.168.0.0/16").subnets(new_prefix=20))


def choose_subnet(taken: Collection[IPv4Network]) -> IPv4Network:
    """The first pool that overlaps nothing of `taken`: other networks, and what the host already has routes to. Unavailable when none is
    left.
    """
    for pool in _POOLS:
        if not any(pool.overlaps(other) for other in taken):
            return pool
    raise Unavailable(
        "all predefined address pools have been fully subnetted: remove networks you no longer need (network prune), or give --subnet"
    )


def check_subnet(subnet: IPv4Network, networks: Iterable[Network]) -> None:
    """Raises Forbidden where it overlaps another network of the instance."""
    for network in networks:
        if network.subnet and subnet.overlaps(IPv4Network(network.subnet)):
            raise Forbidden(
                "invalid pool request: Pool overlaps with other one on this address space: "
                f"{subnet} and {network.subnet} of network {network.name}"
            )


def allocate(network: Network, taken: Collection[str], wanted: str | None = None) -> IPv4Address:
    """`wanted`, or the lowest free address. Raises InvalidInput, Conflict (taken) or Unavailable (none left)."""
    subnet = IPv4Network(network.subnet)
    reserved = {network.gateway, *network.auxiliary.values()}
    if wanted is not None:
        address = parse_address(wanted)
        if address not in subnet or (subnet.prefixlen < 31 and address in (subnet.network_address, subnet.broadcast_address)):
            raise InvalidInput(f"invalid endpoint settings: no configured subnet contains IP address {wanted}: {network.name} is {subnet}")
        if str(address) in taken or str(address) in reserved:
            raise Conflict(f"Address already in use: {wanted} on network {network.name}")
        return address
    for address in _hosts(subnet, IPv4Network(network.ip_range or network.subnet)):
        if str(address) not in taken and str(address) not in reserved:
            return address
    raise Unavailable(f"no available IPv4 addresses on network {network.name} ({network.ip_range or network.subnet})")


def parse_address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise InvalidInput(f"invalid IPv4 address: {text!r}") from error


def parse_subnet(text: str) -> IPv4Network:
    """Host bits are cut off, as Docker does not: it warns, and means the same."""
    try:
        return IPv4Network(text, strict=False)
    except ValueError as error:
        raise InvalidInput(f"invalid subnet {text!r}: write for instance 172.28.0.0/16") from error


def mac_of(address: IPv4Address) -> str:
    """Docker's: locally administered, the address in the last four bytes, so neighbours' caches stay right when an address is reused."""
    return (b"\x02\x42" + address.packed).hex(":")


def _hosts(subnet: IPv4Network, within: IPv4Network) -> Iterator[IPv4Address]:
    edges = () if subnet.prefixlen >= 31 else (subnet.network_address, subnet.broadcast_address)
    first, last = int(within.network_address), int(within.broadcast_address)
    return (address for address in map(IPv4Address, range(first, last + 1)) if address not in edges)
