"""Endpoints and endpoint slices: the addresses behind a service."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.pod_containers import PROTOCOLS
from atoll.apiserver.kinds.pod_spec import validate_ip
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.client.addresses import special_range

_FAMILIES = ("FQDN", "IPv4", "IPv6")
ENDPOINTS_MAX, ADDRESSES_MAX, PORTS_MAX = 1000, 100, 20000


class EndpointsRules(Rules):
    def default(self, obj: Object) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                port.setdefault("protocol", "TCP")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        for index, subset in enumerate(obj.get("subsets") or ()):
            path = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                causes.required(path, "must specify `addresses` or `notReadyAddresses`")
            for field in ("addresses", "notReadyAddresses"):
                for number, address in enumerate(subset.get(field) or ()):
                    validate_endpoint_ip(address.get("ip") or "", f"{path}.{field}[{number}].ip", causes)
            ports = subset.get("ports") or ()
            for number, port in enumerate(ports):
                _check_port(port, f"{path}.ports[{number}]", len(ports) > 1, causes)


class EndpointSliceRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        for port in obj.get("ports") or ():
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        family = obj.get("addressType")
        causes.one_of("addressType", family, _FAMILIES)
        endpoints, ports = obj.get("endpoints") or (), obj.get("ports") or ()
        if len(endpoints) > ENDPOINTS_MAX:
            causes.too_many("endpoints", len(endpoints), ENDPOINTS_MAX)
        if len(ports) > PORTS_MAX:
            causes.too_many("ports", len(ports), PORTS_MAX)
        for index, endpoint in enumerate(endpoints):
            addresses = endpoint.get("addresses") or ()
            path = f"endpoints[{index}].addresses"
            if not addresses:
                causes.required(path, "must contain at least 1 address")
            elif len(addresses) > ADDRESSES_MAX:
                causes.too_many(path, len(addresses), ADDRESSES_MAX)
            if family in ("IPv4", "IPv6"):
                for number, address in enumerate(addresses):
                    validate_endpoint_ip(address, f"{path}[{number}]", causes, 4 if family == "IPv4" else 6)
        taken: set[str] = set()
        for index, port in enumerate(ports):
            name = port.get("name") or ""
            if name in taken:
                causes.duplicate(f"ports[{index}].name", name)
            taken.add(name)
            if port.get("protocol") not in PROTOCOLS:
                causes.unsupported(f"ports[{index}].protocol", port.get("protocol"), PROTOCOLS)

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        causes.immutable("addressType", new.get("addressType"), old.get("addressType"))


def validate_endpoint_ip(value: str, path: str, causes: Causes, version: int | None = None) -> None:
    """Upstream's ValidateEndpointIP: an address, and none that leads to the caller's own host."""
    before = len(causes)
    validate_ip(value, path, causes, version)
    if len(causes) == before and (why := special_range(value)):
        causes.invalid(path, value, why)


def _check_port(port: ReadOnly, path: str, named: bool, causes: Causes) -> None:
    if port.get("name"):
        causes.each(f"{path}.name", port["name"], names.label(port["name"]))
    elif named:
        causes.required(f"{path}.name")
    causes.each(f"{path}.port", port.get("port") or 0, names.port_number(port.get("port") or 0))
    causes.one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)


RULES, SLICE_RULES = EndpointsRules(), EndpointSliceRules()
