"""Cluster IPs and node ports of services: chosen at create, kept by update, free again when the service goes.

There is no second record of what is taken: it is read from the stored services, plus what writes under way have reserved.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, ip_address
from typing import Any

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.kind import Cause, Kind

_WITH_NODE_PORT = ("NodePort", "LoadBalancer")
_RANDOM_TRIES = 64  # before the range is walked in order

_NOTHING = contextlib.nullcontext()

Taken = set[str | tuple[str, int]]  # addresses, and ports as (protocol, number)
Services = Callable[[], Iterable[Mapping[str, Any]]]


class ServiceAddresses:
    """`services()` gives the stored Service objects."""

    def __init__(self, services: Services, cidr: IPv4Network, node_ports: range, rng: random.Random | None = None) -> None:
        self._services = services
        self._cidr = cidr
        self._ports = node_ports
        self._random = rng or random.SystemRandom()
        self._pending: Taken = set()

    def reserve(self, kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None) -> contextlib.AbstractContextManager[None]:
        """Fill in `new`'s addresses and hold them until the write is done; only for a Service. Raises StatusError 422."""
        return self._reserve(kind, new, old) if kind.kind == "Service" and not kind.group else _NOTHING

    @contextlib.contextmanager
    def _reserve(self, kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None) -> Iterator[None]:
        held = self._assign(kind, new, old)
        self._pending |= held
        try:
            yield
        finally:
            self._pending -= held

    def _assign(self, kind: Kind, new: dict[str, Any], old: Mapping[str, Any] | None) -> Taken:
        spec = new.setdefault("spec", {})
        former = (old or {}).get("spec") or {}
        taken: Taken = set(self._pending)
        for service in self._services():
            if service["metadata"].get("uid") != new["metadata"].get("uid"):
                taken |= _held(service.get("spec") or {})
        name = new["metadata"].get("name") or ""
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs"):
                spec.pop(field, None)
            return set()
        self._cluster_ip(kind, name, spec, former, taken)
        self._node_ports(kind, name, spec, former, taken)
        return _held(spec)

    def _cluster_ip(self, kind: Kind, name: str, spec: dict[str, Any], former: Mapping[str, Any], taken: Taken) -> None:
        address = spec.get("clusterIP") or former.get("clusterIP") or ""
        if address == "None":
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        if not address:
            address = self._free_address(kind, name, taken)
        elif address != former.get("clusterIP"):
            self._check_address(kind, name, address, taken)
        spec["clusterIP"] = address
        spec["clusterIPs"] = [address]
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def _check_address(self, kind: Kind, name: str, address: str, taken: Taken) -> None:
        try:
            inside = ip_address(address) in self._cidr
        except ValueError:
            inside = False
        if not inside:
            why = (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self._cidr}"
            )
        elif address in taken:
            why = f"failed to allocate IP {address}: provided IP is already allocated"
        else:
            return
        raise statuses.invalid(kind, name, [Cause("FieldValueInvalid", f'Invalid value: ["{address}"]: {why}', "spec.clusterIPs")])

    def _free_address(self, kind: Kind, name: str, taken: Taken) -> str:
        size = self._cidr.num_addresses
        # The first 16 are left to those who ask for one by name (the API's own, DNS), as upstream's static band.
        low = min(17, size - 2)
        for _ in range(_RANDOM_TRIES):
            address = str(self._cidr[self._random.randrange(low, size - 1)])
            if address not in taken:
                return address
        for index in range(1, size - 1):
            address = str(self._cidr[index])
            if address not in taken:
                return address
        raise statuses.internal(f"failed to allocate a serviceIP for {name}: range {self._cidr} is full")

    def _node_ports(self, kind: Kind, name: str, spec: dict[str, Any], former: Mapping[str, Any], taken: Taken) -> None:
        ports = spec.get("ports") or []
        wanted = spec.get("type") in _WITH_NODE_PORT and not (
            spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False
        )
        if not wanted:
            if former.get("type") in _WITH_NODE_PORT:  # became a ClusterIP: the ports it was given go back
                for port in ports:
                    port.pop("nodePort", None)
            return
        kept = {(p.get("protocol", "TCP"), p["port"]): p.get("nodePort") for p in former.get("ports") or ()}
        own = {(p.get("protocol", "TCP"), p["nodePort"]) for p in former.get("ports") or () if p.get("nodePort")}
        for index, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            if not port.get("nodePort") and kept.get((protocol, port["port"])):
                port["nodePort"] = kept[protocol, port["port"]]
            number = port.get("nodePort")
            if not number:
                number = self._free_port(name, protocol, taken)
            elif (protocol, number) not in own:
                self._check_port(kind, name, index, protocol, number, taken)
            port["nodePort"] = number
            taken.add((protocol, number))

    def _check_port(self, kind: Kind, name: str, index: int, protocol: str, number: int, taken: Taken) -> None:
        if number not in self._ports:
            why = f"provided port is not in the valid range. The range of valid ports is {self._ports.start}-{self._ports.stop - 1}"
        elif (protocol, number) in taken:
            why = "provided port is already allocated"
        else:
            return
        raise statuses.invalid(kind, name, [Cause("FieldValueInvalid", f"Invalid value: {number}: {why}", f"spec.ports[{index}].nodePort")])

    def _free_port(self, name: str, protocol: str, taken: Taken) -> int:
        for _ in range(_RANDOM_TRIES):
            number = self._random.choice(self._ports)
            if (protocol, number) not in taken:
                return number
        for number in self._ports:
            if (protocol, number) not in taken:
                return number
        raise statuses.internal(f"failed to allocate a nodePort for {name}: range is full")


def _held(spec: Mapping[str, Any]) -> Taken:
    held: Taken = {(p.get("protocol", "TCP"), p["nodePort"]) for p in spec.get("ports") or () if p.get("nodePort")}
    if spec.get("clusterIP") not in (None, "", "None"):
        held.add(spec["clusterIP"])
    return held
