"""Which addresses stand behind a service's port, by its endpoint slices and traffic policies (discovery.k8s.io/v1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import Any

Object = dict[str, Any]
SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """One address of one named port. `is_ready` takes traffic; `is_serving` does so while it terminates, when nothing is ready."""

    address: str
    port: int
    is_local: bool = False
    is_ready: bool = True
    is_serving: bool = True


Backends = Mapping[tuple[str, str, str, str], list[Backend]]  # namespace, service, protocol, port name


def backends_by_port(slices: Iterable[Object], node_name: str) -> Backends:
    """Every IPv4 backend, sorted, without doubles: slices of one service may overlap for a moment."""
    found: dict[tuple[str, str, str, str], dict[tuple[str, int], Backend]] = defaultdict(dict)
    for item in slices:
        metadata = item["metadata"]
        service = (metadata.get("labels") or {}).get(SERVICE_NAME)
        if not service or item.get("addressType") != "IPv4":
            continue
        for port in item.get("ports") or ():
            if not isinstance(port.get("port"), int):
                continue  # "all ports", which a proxy cannot translate
            key = (metadata.get("namespace", ""), service, port.get("protocol") or "TCP", port.get("name") or "")
            for endpoint in item.get("endpoints") or ():
                for address in endpoint.get("addresses") or ():
                    if _is_address(str(address)):
                        found[key][address, port["port"]] = _backend(endpoint, address, port["port"], node_name)
    return {key: sorted(backends.values()) for key, backends in found.items()}


def eligible(backends: Iterable[Backend], *, local_only: bool) -> list[Backend]:
    """Those that take traffic: the ready ones; failing these, the ones that still serve while they terminate."""
    near = [backend for backend in backends if backend.is_local or not local_only]
    return [backend for backend in near if backend.is_ready] or [backend for backend in near if backend.is_serving]


def _backend(endpoint: Object, address: str, port: int, node_name: str) -> Backend:
    conditions = endpoint.get("conditions") or {}
    is_ready = conditions.get("ready") is not False  # absent means ready
    serving = conditions.get("serving")
    is_serving = is_ready if serving is None else bool(serving)
    is_terminating = bool(conditions.get("terminating"))
    return Backend(address, port, bool(node_name) and endpoint.get("nodeName") == node_name, is_ready, is_serving and is_terminating)


@lru_cache(maxsize=16384)  # the same addresses come with every change of anything
def _is_address(text: str) -> bool:
    """Loopback and link-local are refused by the API server too: they would turn a service into a door to the node."""
    try:
        address = IPv4Address(text)
    except (AddressValueError, ValueError):
        return False
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
