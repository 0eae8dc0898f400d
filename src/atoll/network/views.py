"""Networks as the Engine API shows them, and the filters it lists them by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atoll import units
from atoll.errors import InvalidInput
from atoll.network.model import Endpoint, Network

Filters = Mapping[str, Sequence[str]]
_LIST_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_PRUNE_FILTERS = ("label", "label!", "until")


def network_view(network: Network, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The body of GET /networks/{id}."""
    first = _config(network.subnet, network.gateway, network.ip_range, network.auxiliary)
    second = _config(network.subnet6, network.gateway6, network.ip_range6, network.auxiliary6)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(network.subnet6),
        "IPAM": {"Driver": "default", "Options": network.ipam_options or None, "Config": [*first, *second]},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {endpoint.container_id: _member(endpoint) for endpoint in endpoints},
        "Options": network.options,
        "Labels": network.labels,
    }


def _config(subnet: str, gateway: str, ip_range: str, auxiliary: dict[str, str]) -> list[dict[str, Any]]:
    """IPAM.Config of one family."""
    if not subnet:
        return []
    config: dict[str, Any] = {"Subnet": subnet, "Gateway": gateway}
    if ip_range:
        config["IPRange"] = ip_range
    if auxiliary:
        config["AuxiliaryAddresses"] = auxiliary
    return [config]


def _member(endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": endpoint.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint.address else "",
        "IPv6Address": f"{endpoint.address6}/{endpoint.prefix6}" if endpoint.address6 else "",
    }


def ports_view(endpoints: Iterable[Endpoint]) -> dict[str, list[dict[str, str]]]:
    """NetworkSettings.Ports of what is published."""
    shown: dict[str, list[dict[str, str]]] = {}
    for endpoint in endpoints:
        for port in endpoint.ports:
            binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
            bindings = shown.setdefault(f"{port.container_port}/{port.protocol}", [])
            if binding not in bindings:
                bindings.append(binding)
    return shown


def matches(network: Network, filters: Filters, *, in_use: bool) -> bool:
    """Whether the filters of GET /networks keep it. Raises InvalidInput for an unknown one."""
    _check(filters, _LIST_FILTERS)
    kind = "builtin" if network.is_predefined else "custom"
    for value in filters.get("type", ()):
        if value not in ("builtin", "custom"):
            raise InvalidInput(f"invalid filter: 'type'='{value}'")
    dangling = [_truth(value, "dangling") for value in filters.get("dangling", ())]
    is_dangling = not in_use and not network.is_predefined
    return (
        _any(filters.get("driver"), lambda value: network.driver == value)
        and _any(filters.get("id"), network.id.startswith)
        and _any(filters.get("name"), lambda value: value in network.name)
        and _any(filters.get("scope"), lambda value: value == "local")
        and _any(filters.get("type"), lambda value: value == kind)
        and all(has_label(network.labels, wanted) for wanted in filters.get("label", ()))
        and all(value == is_dangling for value in dangling)
    )


def matches_prune(network: Network, filters: Filters) -> bool:
    _check(filters, _PRUNE_FILTERS)
    limits = [_until(value) for value in filters.get("until", ())]
    return (
        all(has_label(network.labels, wanted) for wanted in filters.get("label", ()))
        and not any(has_label(network.labels, unwanted) for unwanted in filters.get("label!", ()))
        and all(network.created < limit for limit in limits)
    )


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """`key` or `key=value`."""
    key, separator, value = wanted.partition("=")
    return key in labels and (not separator or labels[key] == value)


def _any(values: Sequence[str] | None, test: Any) -> bool:
    return not values or any(test(value) for value in values)


def _check(filters: Filters, known: Sequence[str]) -> None:
    for name in filters:
        if name not in known:
            raise InvalidInput(f"invalid filter '{name}'")


def _truth(value: str, name: str) -> bool:
    if value.lower() in ("1", "true", "t"):
        return True
    if value.lower() in ("0", "false", "f"):
        return False
    raise InvalidInput(f"invalid value for filter '{name}': {value!r}")


def _until(value: str) -> str:
    """A duration before now, a Unix time or a timestamp, to the form of Network.created, which sorts as text."""
    if value.replace(".", "", 1).isdigit():
        return units.timestamp(int(float(value) * units.NS))
    if "T" in value or (value[:4].isdigit() and "-" in value):
        return value
    return units.timestamp(time.time_ns() - units.parse_duration(value))
