"""From services and endpoint slices to rules. Pure: no kernel, no clock.

A service port becomes one chain that picks a backend at random, and elements that lead to it: its cluster IP, its node port, its
external IPs. A port
without a backend becomes an element of a set that refuses, so that callers fail at once. With session affinity each backend gets a chain
of its own
and a set of the callers it has seen.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from atoll.node.proxy.endpoints import Backend, Backends, backends_by_port, eligible
from atoll.node.proxy.ruleset import TAKE_NODE_ADDRESS, Door, Ruleset

Object = dict[str, Any]

logger = logging.getLogger(__name__)

_PROTOCOLS = {"TCP": "tcp", "UDP": "udp"}
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_AFFINITY_S = 10800  # core/v1 ClientIPConfig.timeoutSeconds' default
_AFFINITY_MAX = 65536  # callers remembered for each backend
_PROXIED_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")


def plan(services: Iterable[Object], slices: Iterable[Object], *, node_name: str = "") -> Ruleset:
    """The rules for these objects on the node of that name. What is not for a proxy (headless, ExternalName, SCTP, IPv6) is passed over."""
    ruleset = Ruleset()
    backends = backends_by_port(slices, node_name)
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        if not _is_proxied(metadata, spec):
            continue
        ruleset.elements["cluster_ips", spec["clusterIP"]] = ""
        for port in spec.get("ports") or ():
            if port.get("protocol", "TCP") in _PROTOCOLS:
                _plan_port(ruleset, service, port, backends)
    return ruleset


def _is_proxied(metadata: Object, spec: Object) -> bool:
    names = metadata.get("namespace", ""), metadata.get("name", "")
    if not all(_DNS_NAME.fullmatch(name) for name in names):
        logger.warning("service %r is passed over: its name cannot stand in a rule", "/".join(names))
        return False
    return (
        spec.get("type", "ClusterIP") in _PROXIED_TYPES
        and _is_ipv4(spec.get("clusterIP"))
        and (metadata.get("labels") or {}).get("service.kubernetes.io/service-proxy-name") is None
    )


def _plan_port(ruleset: Ruleset, service: Object, port: Object, backends: Backends) -> None:
    metadata, spec = service["metadata"], service["spec"]
    protocol = port.get("protocol", "TCP")
    behind = backends.get((metadata.get("namespace", ""), metadata["name"], protocol, port.get("name") or ""), [])
    l4 = _PROTOCOLS[protocol]
    base = f"{metadata.get('namespace', '')}/{metadata['name']}/{l4}/{port['port']}"
    affinity = _affinity(spec)
    inside = eligible(behind, local_only=spec.get("internalTrafficPolicy") == "Local")
    keeps_source = spec.get("externalTrafficPolicy") == "Local"
    outside = eligible(behind, local_only=keeps_source)
    _balance(ruleset, f"svc/{base}", l4, inside, affinity)
    _lead(ruleset, l4, (spec["clusterIP"], port["port"]), f"svc/{base}", inside)

    doors = [(address, port["port"]) for address in _external_addresses(service)]
    if port.get("nodePort"):
        doors.append(("", port["nodePort"]))
    if not doors:
        return
    local = f"svc/{base}"
    if outside != inside:
        local = f"ext/{base}"
        _balance(ruleset, local, l4, outside, affinity)
    entry = f"in/{base}"
    if outside:
        mark = () if keeps_source else (f"jump {TAKE_NODE_ADDRESS}",)
        ruleset.chains[entry] = (*_source_ranges(spec), *mark, f"goto {local}")
    for door in doors:
        _lead(ruleset, l4, door, entry, outside)


def _lead(ruleset: Ruleset, l4: str, door: Door, chain: str, backends: Sequence[Backend]) -> None:
    """The element that leads to the chain, or refuses. Of two services that claim the same door the first stands."""
    address, port = door
    served, refused = ("services", "refused") if address else ("nodeports", "refused_nodeports")
    key = f"{address} . {l4} . {port}" if address else f"{l4} . {port}"
    if (served, key) in ruleset.elements or (refused, key) in ruleset.elements:
        return
    if backends:
        ruleset.elements[served, key] = f"goto {chain}"
    else:
        ruleset.elements[refused, key] = ""
    if l4 == "udp":
        ruleset.udp[door] = frozenset((backend.address, backend.port) for backend in backends)


def _balance(ruleset: Ruleset, chain: str, l4: str, backends: Sequence[Backend], affinity: int) -> None:
    if not backends:
        return
    if affinity:
        _balance_with_affinity(ruleset, chain, l4, backends, affinity)
    elif len(backends) == 1:
        ruleset.chains[chain] = (_dnat(l4, backends[0]),)
    else:
        choices = ", ".join(f"{index} : {backend.address} . {backend.port}" for index, backend in enumerate(backends))
        ruleset.chains[chain] = (f"meta l4proto {l4} dnat ip to numgen random mod {len(backends)} map {{ {choices} }}",)


def _balance_with_affinity(ruleset: Ruleset, chain: str, l4: str, backends: Sequence[Backend], timeout_s: int) -> None:
    known, choices = [], []
    for index, backend in enumerate(backends):
        mark = hashlib.sha256(f"{chain} {backend.address} {backend.port} {timeout_s}".encode()).hexdigest()[:16]
        callers, own = f"aff-{mark}", f"ep-{mark}"
        ruleset.sets[callers] = f"type ipv4_addr; size {_AFFINITY_MAX}; flags dynamic,timeout; timeout {timeout_s}s;"
        ruleset.chains[own] = (f"update @{callers} {{ ip saddr }}", _dnat(l4, backend))
        known.append(f"ip saddr @{callers} goto {own}")
        choices.append(f"{index} : goto {own}")
    ruleset.chains[chain] = (*known, f"numgen random mod {len(backends)} vmap {{ {', '.join(choices)} }}")


def _dnat(l4: str, backend: Backend) -> str:
    return f"meta l4proto {l4} dnat to {backend.address}:{backend.port}"


def _affinity(spec: Object) -> int:
    """Seconds; 0 for none."""
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    return int(((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds") or _AFFINITY_S)


def _external_addresses(service: Object) -> list[str]:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [*(service["spec"].get("externalIPs") or ()), *(entry.get("ip") for entry in ingress if entry.get("ipMode") != "Proxy")]
    return [address for address in addresses if _is_ipv4(address)]


def _source_ranges(spec: Object) -> tuple[str, ...]:
    """loadBalancerSourceRanges: callers from elsewhere are dropped."""
    ranges = []
    for text in spec.get("loadBalancerSourceRanges") or ():
        try:
            ranges.append(str(IPv4Network(str(text).strip(), strict=False)))
        except (AddressValueError, ValueError):
            continue
    if not spec.get("loadBalancerSourceRanges") or spec.get("type") != "LoadBalancer":
        return ()
    allowed = ", ".join(ranges)
    return (f"ip saddr != {{ {allowed} }} drop",) if allowed else ("drop",)


def _is_ipv4(text: object) -> bool:
    try:
        IPv4Address(str(text))
    except (AddressValueError, ValueError):
        return False
    return True
