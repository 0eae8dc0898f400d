"""The instance's nftables table: what it says, and the text of each change.

One table of family ip holds a handful of fixed chains; everything that comes and goes is an element of a set or map, so a change costs
one element
(0.1 ms) however many containers run, and a packet one lookup. Chains of ours only ever accept or drop what has to do with our bridges:
rules of
others (Docker's, ufw's) stay in force beside them.

    raw        nothing reaches the host's loopback from a bridge (route_localnet is on there: CVE-2020-8558)
    prerouting, output   published ports: host address, protocol and port lead to a container's
    forward    replies; neighbours; published ports; nothing between networks; nothing else from outside into a network
    postrouting   loopback as a source, containers that meet themselves, and all that leaves for the world, take the host's address
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

from atoll.network.model import Endpoint, Network, PublishedPort

OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"

Element = tuple[str, str]  # set or map, element


def table_name(instance_id: str) -> str:
    return f"atoll_{instance_id}"


def full_table(table: str, networks: Iterable[Network], endpoints: Iterable[Endpoint], *, bridge_netfilter: bool) -> str:
    """Commands that make the table as it must be now, in place of whatever stood there; one transaction."""
    # Where bridged packets pass the IP hooks, a container that reaches a neighbour by a published port is answered through conntrack;
    # where not,
    # the answer would go straight across the bridge from a stranger's address, so such packets must take the bridge's own.
    hairpin = "ip saddr . ip daddr @selves" if bridge_netfilter else "ct status dnat ip saddr . oifname @own"
    skeleton = f"""
table ip {table}
delete table ip {table}
table ip {table} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set neighbours {{ type ifname . ifname; }}
  set own {{ type ipv4_addr . ifname; flags interval; }}
  set masqueraded {{ type ipv4_addr; flags interval; }}
  set selves {{ type ipv4_addr . ipv4_addr; }}
  map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map published_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    fib daddr type local dnat ip to meta l4proto . th dport map @published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    fib daddr type local dnat ip to meta l4proto . th dport map @published
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
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    {hairpin} masquerade
    ip saddr . oifname @own return
    ip saddr @masqueraded masquerade
  }}
}}
"""
    elements = [element for network in networks for element in network_elements(network)]
    for endpoint in endpoints:
        elements += endpoint_elements(endpoint)
    return skeleton + add(table, elements)


def network_elements(network: Network) -> list[Element]:
    if network.driver != "bridge":
        return []
    found = [("bridges", f'"{network.bridge}"'), ("own", f'{network.subnet} . "{network.bridge}"')]
    if network.option_true(OPTION_ICC, default=True):
        found.append(("neighbours", f'"{network.bridge}" . "{network.bridge}"'))
    if network.internal:
        found.append(("internal", f'"{network.bridge}"'))
    elif network.option_true(OPTION_MASQUERADE, default=True):
        found.append(("masqueraded", network.subnet))
    return found


def endpoint_elements(endpoint: Endpoint) -> list[Element]:
    if not endpoint.address:
        return []
    return [("selves", f"{endpoint.address} . {endpoint.address}")] + [
        element for port in endpoint.ports for element in _port_elements(port, endpoint.address)
    ]


def add(table: str, elements: Iterable[Element]) -> str:
    return "".join(f"add element ip {table} {name} {{ {element} }}\n" for name, element in elements)


def delete(table: str, elements: Iterable[Element]) -> str:
    return "".join(f"delete element ip {table} {name} {{ {element} }}\n" for name, element in elements)


def _port_elements(port: PublishedPort, address: str) -> list[Element]:
    host = ip_address(port.host_ip)
    if not isinstance(host, IPv4Address):
        return []  # IPv6 arrives by the relay
    target = f"{address} . {port.container_port}"
    if host.is_unspecified:
        return [("published", f"{port.protocol} . {port.host_port} : {target}")]
    return [("published_at", f"{host} . {port.protocol} . {port.host_port} : {target}")]
