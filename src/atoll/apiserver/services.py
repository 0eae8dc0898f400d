"""Where a service of the cluster is reached from here: one of the ready endpoints behind one of its ports.

Webhooks and aggregated API servers are named by service, namespace and port. The endpoints are called themselves, not the cluster IP (as
kube-apiserver does with --enable-aggregator-routing): the API server need not stand behind a service proxy. A service of type ExternalName
leads out of the cluster and is never followed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Literal, NamedTuple

from atoll.apiserver.core import Core
from atoll.apiserver.machinery.items import Object
from atoll.client.addresses import is_special
from atoll.errors import Unavailable

SERVICE_LABEL = "kubernetes.io/service-name"
_ADDRESS_TYPES = ("IPv4", "IPv6")  # a host's name (FQDN) would lead wherever its owner likes
_RANDOM = random.SystemRandom()

Lack = Literal["", "service", "type", "port", "slices", "addresses"]


class Backends(NamedTuple):
    """`addresses` and ports behind a service's port, called `port_name` there; or what is lacking."""

    lack: Lack
    addresses: tuple[tuple[str, int], ...] = ()
    port_name: str = ""


def backends(core: Core, namespace: str, name: str, port: int) -> Backends:
    found = core.find("", "v1", "services", name, namespace)
    if found is None:
        return Backends("service")
    spec = found.obj.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return Backends("type")
    listening = next((each for each in spec.get("ports") or () if each.get("port") == port and each.get("protocol", "TCP") == "TCP"), None)
    if listening is None:
        return Backends("port")
    port_name = listening.get("name") or ""
    slices = slices_of(core, namespace, name)
    if not slices:
        return Backends("slices", (), port_name)
    addresses = ready_addresses(slices, port_name)
    return Backends("" if addresses else "addresses", addresses, port_name)


def slices_of(core: Core, namespace: str, name: str) -> list[Object]:
    """The slices of a service that hold addresses."""
    kind = core.registry.get("discovery.k8s.io", "v1", "endpointslices")
    assert kind is not None
    return [
        item.obj
        for item in core.cacher(kind).in_order(namespace)
        if (item.obj["metadata"].get("labels") or {}).get(SERVICE_LABEL) == name and item.obj.get("addressType") in _ADDRESS_TYPES
    ]


def ready_addresses(slices: Iterable[Object], port_name: str) -> tuple[tuple[str, int], ...]:
    """Where the port of that name is served: by endpoints that are ready, or do not say, and that are not this host's own doors."""
    return tuple(
        (str(endpoint["addresses"][0]), int(open_port["port"]))
        for each in slices
        for open_port in each.get("ports") or ()
        if (open_port.get("name") or "") == port_name and open_port.get("port")
        for endpoint in each.get("endpoints") or ()
        if endpoint.get("addresses")
        and (endpoint.get("conditions") or {}).get("ready") is not False
        and not is_special(str(endpoint["addresses"][0]))
    )


def base_of(core: Core, namespace: str, name: str, port: int) -> str:
    """https://address:port of one of the endpoints. Raises Unavailable saying what is lacking."""
    found = backends(core, namespace, name, port)
    if not found.lack:
        host, number = _RANDOM.choice(found.addresses)
        return f"https://[{host}]:{number}" if ":" in host else f"https://{host}:{number}"
    raise Unavailable(
        {
            "service": f'service "{name}" not found',
            "type": f'service "{name}" is of type ExternalName, which leads out of the cluster',
            "port": f'no service port {port} found for service "{name}"',
        }.get(found.lack, f'no endpoints available for service "{name}"')
    )
