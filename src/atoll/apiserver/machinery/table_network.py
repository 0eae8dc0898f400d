"""Rows of services, endpoints, ingresses and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.apiserver.machinery.table_format import NONE, UNSET, Age, columns, first_few, labels, name_of, selector

SERVICE = columns("Name, Type, Cluster-IP, External-IP, Port(s), Age; Selector")
ENDPOINTS = columns("Name, Endpoints, Age")
ENDPOINT_SLICE = columns("Name, AddressType, Ports, Endpoints, Age")
INGRESS = columns("Name, Class, Hosts, Address, Ports, Age")
INGRESS_CLASS = columns("Name, Controller, Parameters, Age")
NETWORK_POLICY = columns("Name, Pod-Selector, Age")
IP_ADDRESS = columns("Name, ParentRef")
SERVICE_CIDR = columns("Name, CIDRs, Age")

Object = Mapping[str, Any]


def service(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    ports = ",".join(
        f"{port.get('port')}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    )
    return [
        name_of(obj),
        spec.get("type") or "",
        spec.get("clusterIP") or NONE,
        _external(obj, spec),
        ports or NONE,
        age.of(obj),
        labels(spec.get("selector")),
    ]


def _external(obj: Object, spec: Object) -> str:
    given = list(spec.get("externalIPs") or ())
    if spec.get("type") == "ExternalName":
        return spec.get("externalName") or ""
    if spec.get("type") != "LoadBalancer":
        return ",".join(given) or NONE
    return ",".join(filter(None, [_balancer(obj), *given])) or "<pending>"


def _balancer(obj: Object) -> str:
    entries = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(sorted({entry.get("ip") or entry.get("hostname") or "" for entry in entries}))


def endpoints(obj: Object, age: Age) -> list[Any]:
    pairs: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [address.get("ip") or "" for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        pairs += [_joined(address, port.get("port")) for port in ports for address in addresses] if ports else addresses
    return [name_of(obj), first_few(pairs, NONE), age.of(obj)]


def _joined(address: str, port: int | None) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoint_slice(obj: Object, age: Age) -> list[Any]:
    ports = [str(port["port"]) if port.get("port") else "*" for port in obj.get("ports") or ()]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [name_of(obj), obj.get("addressType") or "", first_few(ports, UNSET), first_few(addresses, UNSET), age.of(obj)]


def ingress(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    return [
        name_of(obj),
        spec.get("ingressClassName") or NONE,
        first_few(hosts, "*"),
        _balancer(obj),
        "80, 443" if spec.get("tls") else "80",
        age.of(obj),
    ]


def ingress_class(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    parameters = spec.get("parameters")
    shown = NONE
    if parameters:
        group = parameters.get("apiGroup")
        shown = f"{parameters.get('kind')}{'.' + group if group else ''}/{parameters.get('name')}"
    return [name_of(obj), spec.get("controller") or "", shown, age.of(obj)]


def network_policy(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), selector((obj.get("spec") or {}).get("podSelector") or {}), age.of(obj)]


def ip_address(obj: Object, _: Age) -> list[Any]:
    parent = (obj.get("spec") or {}).get("parentRef") or {}
    resource = ".".join(filter(None, (parent.get("resource"), parent.get("group"))))
    return [name_of(obj), "/".join(filter(None, (resource, parent.get("namespace"), parent.get("name"))))]


def service_cidr(obj: Object, age: Age) -> list[Any]:
    cidrs: Sequence[str] = (obj.get("spec") or {}).get("cidrs") or ()
    return [name_of(obj), ",".join(cidrs), age.of(obj)]
