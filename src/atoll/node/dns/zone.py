"""The cluster's zone: names made of services and endpoint slices, and the answer to one question. Pure.

Follows the Kubernetes DNS-Based Service Discovery specification, 1.1.0. What it leaves open is CoreDNS's choice: an endpoint without a
hostname is known
by its address with dashes, a pod by the same under `pod`, and names between the zone and its records exist without data.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Any

Object = dict[str, Any]
Records = dict[str, tuple[str, ...]]  # type to data in presentation form

logger = logging.getLogger(__name__)

TTL_S = 5  # CoreDNS's: services move
SPECIFICATION = "1.1.0"
_SERVICE_NAME = "kubernetes.io/service-name"
_LABELS = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
_DASHED = re.compile(r"\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say of a name. `exists` without records of the kind asked for is "no data"; `alias` is where a CNAME leads."""

    exists: bool
    data: tuple[str, ...] = ()
    alias: str = ""


@dataclass(slots=True)
class Zone:
    """Names in lower case, without the final dot."""

    domain: str = "cluster.local"
    names: dict[str, Records] = field(default_factory=dict)
    pointers: dict[str, tuple[str, ...]] = field(default_factory=dict)  # address to names

    @classmethod
    def build(cls, services: Iterable[Object], slices: Iterable[Object], domain: str = "cluster.local") -> Zone:
        """Objects whose names cannot stand in DNS are passed over."""
        zone = cls(domain)
        found: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))  # ordered sets
        pointers: dict[str, dict[str, None]] = defaultdict(dict)
        by_service: dict[tuple[str, str], list[Object]] = defaultdict(list)
        for item in slices:
            metadata = item["metadata"]
            if item.get("addressType") == "IPv4":
                by_service[metadata.get("namespace", ""), (metadata.get("labels") or {}).get(_SERVICE_NAME, "")].append(item)
        for service in services:
            metadata = service["metadata"]
            name = f"{metadata['name']}.{metadata.get('namespace', '')}.svc.{domain}"
            if not _LABELS.fullmatch(name):
                logger.warning("service %r has no DNS name", name)
                continue
            for owner, kind, data in _service_records(service, name, by_service[metadata.get("namespace", ""), metadata["name"]]):
                if kind == "PTR":
                    pointers[owner][data] = None
                else:
                    found[owner][kind][data] = None
        found[f"dns-version.{domain}"]["TXT"][f'"{SPECIFICATION}"'] = None
        zone.names = {name: {kind: tuple(data) for kind, data in records.items()} for name, records in found.items()}
        zone.pointers = {address: tuple(names) for address, names in pointers.items()}
        for name in list(zone.names):
            zone._add_ancestors(name)
        return zone

    def holds(self, name: str) -> bool:
        return name == self.domain or name.endswith(f".{self.domain}")

    def _add_ancestors(self, name: str) -> None:
        """Empty non-terminals: they exist, or resolvers that ask label by label stop at them (RFC 8020)."""
        while name != self.domain:
            name = name.partition(".")[2]
            self.names.setdefault(name, {})


def resolve(zone: Zone, name: str, kind: str) -> Answer | None:
    """The answer for `name` (lower case, no final dot) and type; None where it is not the cluster's to say."""
    if kind == "PTR":
        names = zone.pointers.get(_reversed(name), ())
        return Answer(exists=True, data=tuple(f"{found}." for found in names)) if names else None
    if not zone.holds(name):
        return None
    records = zone.names.get(name)
    if records is None:
        address = _pod_address(zone, name)
        if address is None:
            return Answer(exists=name == f"pod.{zone.domain}")
        return Answer(exists=True, data=(address,) if kind == "A" else ())
    if alias := records.get("CNAME"):
        return Answer(exists=True, data=alias, alias=alias[0].rstrip("."))
    return Answer(exists=True, data=records.get(kind, ()))


def _service_records(service: Object, name: str, slices: list[Object]) -> Iterator[tuple[str, str, str]]:
    """Name, type and data."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        target = str(spec.get("externalName") or "").rstrip(".").lower()
        if _LABELS.fullmatch(target):
            yield name, "CNAME", f"{target}."
        return
    cluster_ip = str(spec.get("clusterIP") or "")
    if cluster_ip == "None":
        yield from _headless_records(name, slices, with_unready=bool(spec.get("publishNotReadyAddresses")))
        return
    if not _is_ipv4(cluster_ip):
        return
    yield name, "A", cluster_ip
    yield cluster_ip, "PTR", name
    for port in spec.get("ports") or ():
        for owner in _port_owners(port, name):
            yield owner, "SRV", f"0 100 {int(port['port'])} {name}."


def _headless_records(name: str, slices: list[Object], *, with_unready: bool) -> Iterator[tuple[str, str, str]]:
    for item in slices:
        for endpoint in item.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False and not with_unready:
                continue
            for address in filter(_is_ipv4, endpoint.get("addresses") or ()):
                host = f"{endpoint.get('hostname') or address.replace('.', '-')}.{name}"
                if not _LABELS.fullmatch(host):
                    continue
                yield name, "A", address
                yield host, "A", address
                yield address, "PTR", host
                for port in item.get("ports") or ():
                    for owner in _port_owners(port, name):
                        yield owner, "SRV", f"0 100 {int(port['port'])} {host}."


def _port_owners(port: Object, name: str) -> Iterator[str]:
    """Where a named port's SRV record stands: under its own name, and under the service's, where CoreDNS gathers all."""
    if not isinstance(port.get("port"), int):
        return
    if port.get("name") and _LABELS.fullmatch(port["name"]):
        yield f"_{port['name']}._{port.get('protocol', 'TCP').lower()}.{name}"
    yield name


def _pod_address(zone: Zone, name: str) -> str | None:
    """10-1-0-2.default.pod.cluster.local is 10.1.0.2, asked or not whether there is such a pod (CoreDNS: pods insecure, kubeadm's
    setting).
    """
    labels = name.removesuffix(f".pod.{zone.domain}").split(".")
    if not name.endswith(f".pod.{zone.domain}") or len(labels) != 2 or not _DASHED.fullmatch(labels[0]):
        return None
    address = labels[0].replace("-", ".")
    return address if _is_ipv4(address) else None


def _reversed(name: str) -> str:
    """2.0.1.10.in-addr.arpa to 10.1.0.2."""
    labels = name.removesuffix(".in-addr.arpa").split(".")
    return ".".join(reversed(labels)) if name.endswith(".in-addr.arpa") else ""


def _is_ipv4(text: object) -> bool:
    try:
        IPv4Address(str(text))
    except (AddressValueError, ValueError):
        return False
    return True
