"""What the proxy's table holds, and the transaction that leads from one such content to another.

The table's frame is fixed; services come and go as chains, as elements of maps that lead to them, and as sets that remember callers.
Only what
differs is written, so that one endpoint more costs one small transaction among a thousand services.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Key = tuple[str, str]  # map or set of the frame, and the element's key
Door = tuple[str, int]  # an address ("" for any of the node's) and a port

TAKE_NODE_ADDRESS = "take_node_address"  # the chain that marks a packet for it
# Twelve bits that name the instance: another cluster on this host, or a kube-proxy with its 0x4000, must not take the mark for its own.
_MARK_MASK = 0xFFF0_0000


@dataclass(slots=True)
class Ruleset:
    """`chains`: name to rules. `sets`: name to definition. `elements`: key to value ("" in a set).

    `udp` says who answers at each UDP door; it makes no rule, it tells which flows a change leaves stale.
    """

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    elements: dict[Key, str] = field(default_factory=dict)
    udp: dict[Door, frozenset[Door]] = field(default_factory=dict)


def table_name(instance_id: str) -> str:
    return f"atoll_{instance_id}_kube"


def _mark(table: str) -> int:
    return (int(table.split("_")[1][:3], 16) or 1) << 20


def full(table: str, ruleset: Ruleset, bridges: Sequence[str]) -> str:
    """The table from nothing, in place of whatever stood there. `bridges` are links of pods on this node, whose callers keep their
    address.
    """
    inward = ", ".join(f'"{bridge}"' for bridge in bridges)
    outward = f"oifname != {{ {inward} }}" if bridges else ""
    frame = f"""
table ip {table}
delete table ip {table}
table ip {table} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map nodeports {{ type inet_proto . inet_service : verdict; }}
  set refused {{ type ipv4_addr . inet_proto . inet_service; }}
  set refused_nodeports {{ type inet_proto . inet_service; }}
  set cluster_ips {{ type ipv4_addr; }}
  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local meta l4proto . th dport vmap @nodeports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    jump dispatch
  }}
  chain output {{
    type nat hook output priority -105; policy accept;
    jump dispatch
  }}
  chain refuse {{
    ip daddr . meta l4proto . th dport @refused reject
    ip daddr @cluster_ips meta l4proto {{ tcp, udp }} reject
    fib daddr type local meta l4proto . th dport @refused_nodeports reject
  }}
  chain refuse_input {{
    type filter hook input priority filter - 5; policy accept;
    ct state new jump refuse
  }}
  chain refuse_forward {{
    type filter hook forward priority filter - 5; policy accept;
    ct state new jump refuse
  }}
  chain refuse_output {{
    type filter hook output priority filter - 5; policy accept;
    ct state new jump refuse
  }}
  chain {TAKE_NODE_ADDRESS} {{
    meta mark set meta mark and {~_MARK_MASK & 0xFFFF_FFFF:#x} or {_mark(table):#x}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    meta mark and {_MARK_MASK:#x} == {_mark(table):#x} {outward} masquerade
    ct status dnat ip saddr 127.0.0.0/8 oifname != "lo" masquerade
  }}
}}
"""
    return frame + difference(table, Ruleset(), ruleset)


def difference(table: str, old: Ruleset, new: Ruleset) -> str:
    """The commands of one transaction; empty where nothing differs.

    What others point to is made before and deleted after them: sets, then chains, then rules, then elements, and back.
    """
    changed = [name for name, rules in new.chains.items() if old.chains.get(name) != rules]
    gone_chains = [name for name in old.chains if name not in new.chains]
    gone_elements = [key for key, value in old.elements.items() if new.elements.get(key) != value]
    new_elements = [key for key, value in new.elements.items() if old.elements.get(key) != value]
    # A set whose definition changed cannot be altered; its name carries the definition, see plan.py.
    lines = [f"add set ip {table} {name} {{ {new.sets[name]} }}" for name in new.sets if name not in old.sets]
    lines += [f"add chain ip {table} {name}" for name in changed if name not in old.chains]
    lines += [_element("delete", table, key, "") for key in gone_elements]
    lines += [f"flush chain ip {table} {name}" for name in (*changed, *gone_chains) if name in old.chains]
    lines += [f"add rule ip {table} {name} {rule}" for name in changed for rule in new.chains[name]]
    lines += [_element("add", table, key, new.elements[key]) for key in new_elements]
    lines += [f"delete chain ip {table} {name}" for name in gone_chains]
    lines += [f"delete set ip {table} {name}" for name in old.sets if name not in new.sets]
    return _text(lines)


def _element(verb: str, table: str, key: Key, value: str) -> str:
    name, element = key
    return f"{verb} element ip {table} {name} {{ {element}{f' : {value}' if value else ''} }}"


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
