"""The instance's nftables table: what it says, and the text of each change.

One table of family ip (and one of ip6, where a network has IPv6) holds a handful of fixed chains; everything that comes and goes is an
element of a set or map, so a change costs one element (0.1 ms) however many containers run, and a packet one lookup. Chains of ours only
ever accept or drop what has to do with our bridges: rules of others (Docker's, ufw's) stay in force beside them.

    raw        nothing reaches the host's loopback from a bridge (route_localnet is on there: CVE-2020-8558)
    prerouting, output   published ports: host address, protocol and port lead to a container's
    forward    replies; neighbours; published ports; nothing between networks; nothing else from outside into a network
    postrouting   loopback as a source, containers that meet themselves, and all that leaves for the world, take the host's address
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from atoll.network.model import Endpoint, Network, PublishedPort

OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"

_LOOPBACK6 = IPv6Address(1)

Element = tuple[str, str, str]  # family (ip, ip6), set or map, element


def table_name(instance_id: str) -> str:
    return f"atoll_{instance_id}"


def full_table(table: str, networks: Iterable[Network], endpoints: Iterable[Endpoint], *, bridge_netfilter: bool) -> str:
    """Commands that make the table as it must be now, in place of whatever stood there; one transaction."""
    return _full_table("ip", table, networks, endpoints, bridge_netfilter=bridge_netfilter)


def full_table6(table: str, networks: Iterable[Network], endpoints: Iterable[Endpoint], *, bridge_netfilter: bool) -> str:
    """The same for the table of family ip6.

    A packet from ::1 cannot leave the host, so what is published reaches those who ask there by the relay.
    """
    return _full_table("ip6", table, networks, endpoints, bridge_netfilter=bridge_netfilter)


def _full_table(family: str, table: str, networks: Iterable[Network], endpoints: Iterable[Endpoint], *, bridge_netfilter: bool) -> str:
    kind = "ipv4_addr" if family == "ip" else "ipv6_addr"
    loopback = "127.0.0.0/8" if family == "ip" else "::1"
    here = "" if family == "ip" else f"ip6 daddr {loopback} return"
    # Where bridged packets pass the IP hooks, a container that reaches a neighbour by a published port is answered through conntrack;
    # where not,
    # the answer would go straight across the bridge from a stranger's address, so such packets must take the bridge's own.
    hairpin = f"{family} saddr . {family} daddr @selves" if bridge_netfilter else f"ct status dnat {family} saddr . oifname @own"
    skeleton = f"""
table {family} {table}
delete table {family} {table}
table {family} {table} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set neighbours {{ type ifname . ifname; }}
  set own {{ type {kind} . ifname; flags interval; }}
  set masqueraded {{ type {kind}; flags interval; }}
  set selves {{ type {kind} . {kind}; }}
  map published {{ type inet_proto . inet_service : {kind} . inet_service; }}
  map published_at {{ type {kind} . inet_proto . inet_service : {kind} . inet_service; }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges {family} daddr {loopback} drop
    iifname @bridges {family} saddr {loopback} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {family} daddr {loopback} return
    dnat {family} to {family} daddr . meta l4proto . th dport map @published_at
    fib daddr type local dnat {family} to meta l4proto . th dport map @published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {here}
    dnat {family} to {family} daddr . meta l4proto . th dport map @published_at
    fib daddr type local dnat {family} to meta l4proto . th dport map @published
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname . oifname @neighbours accept
    iifname @internal drop
    oifname @internal drop
    ct status dnat accept
    oifname @bridges drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges {family} saddr {loopback} masquerade
    {hairpin} masquerade
    {family} saddr . oifname @own return
    {family} saddr @masqueraded masquerade
  }}
}}
"""
    elements = [element for network in networks for element in network_elements(network)]
    for endpoint in endpoints:
        elements += endpoint_elements(endpoint)
    return skeleton + add(table, (element for element in elements if element[0] == family))


def network_elements(network: Network) -> list[Element]:
    if network.driver != "bridge":
        return []
    found = _network_elements("ip", network, network.subnet)
    return found + _network_elements("ip6", network, network.subnet6) if network.subnet6 else found


def _network_elements(family: str, network: Network, subnet: str) -> list[Element]:
    found = [(family, "bridges", f'"{network.bridge}"'), (family, "own", f'{subnet} . "{network.bridge}"')]
    if network.option_true(OPTION_ICC, default=True):
        found.append((family, "neighbours", f'"{network.bridge}" . "{network.bridge}"'))
    if network.internal:
        found.append((family, "internal", f'"{network.bridge}"'))
    elif network.option_true(OPTION_MASQUERADE, default=True):
        found.append((family, "masqueraded", subnet))
    return found


def endpoint_elements(endpoint: Endpoint) -> list[Element]:
    if not endpoint.address:
        return []
    found = [("ip", "selves", f"{endpoint.address} . {endpoint.address}")]
    if endpoint.address6:
        found.append(("ip6", "selves", f"{endpoint.address6} . {endpoint.address6}"))
    return found + [element for port in endpoint.ports for element in _port_elements(port, endpoint)]


def add(table: str, elements: Iterable[Element]) -> str:
    return "".join(f"add element {family} {table} {name} {{ {element} }}\n" for family, name, element in elements)


def delete(table: str, elements: Iterable[Element]) -> str:
    return "".join(f"delete element {family} {table} {name} {{ {element} }}\n" for family, name, element in elements)


def _port_elements(port: PublishedPort, endpoint: Endpoint) -> list[Element]:
    host = ip_address(port.host_ip)
    family, address = ("ip", endpoint.address) if host.version == 4 else ("ip6", endpoint.address6)
    if not address or host == _LOOPBACK6:
        return []  # IPv6 arrives by the relay where the container has none
    target = f"{address} . {port.container_port}"
    if host.is_unspecified:
        return [(family, "published", f"{port.protocol} . {port.host_port} : {target}")]
    return [(family, "published_at", f"{host} . {port.protocol} . {port.host_port} : {target}")]
