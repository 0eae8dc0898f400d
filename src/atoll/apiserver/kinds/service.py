"""Services: ports, types, and the cluster address that stays for life. Addresses and node ports are given out elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.endpoints import validate_endpoint_ip
from atoll.apiserver.kinds.metadata import validate_labels
from atoll.apiserver.kinds.pod_containers import PROTOCOLS
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.machinery.kind import Kind

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_EXTERNAL = ("LoadBalancer", "NodePort")
_ADDRESS_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
AFFINITY_TIMEOUT_S = 10800
_AFFINITY_TIMEOUT_MAX_S = 86400


class ServiceRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        return names.label_1035(name)

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        kind = spec.setdefault("type", "ClusterIP")
        if spec.setdefault("sessionAffinity", "None") == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
            client.setdefault("timeoutSeconds", AFFINITY_TIMEOUT_S)
        for port in spec.get("ports") or ():
            port.setdefault("protocol", "TCP")
            if port.get("targetPort") in (None, 0, ""):
                port["targetPort"] = port.get("port", 0)
        if kind in ("ClusterIP", *_EXTERNAL):
            spec.setdefault("internalTrafficPolicy", "Cluster")
        if kind in _EXTERNAL:
            spec.setdefault("externalTrafficPolicy", "Cluster")
        if kind == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"loadBalancer": {}}

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        super().prepare_for_update(kind, new, old, subresource)
        _drop_former(new["spec"], old["spec"])

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        kind = spec.get("type")
        causes.one_of("spec.type", kind, _TYPES)
        causes.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
        validate_labels(spec.get("selector"), "spec.selector", causes)
        _check_affinity(spec, causes)
        _check_type(spec, kind, causes)
        _check_ports(spec, kind, causes)
        for index, address in enumerate(spec.get("externalIPs") or ()):
            validate_endpoint_ip(address, f"spec.externalIPs[{index}]", causes)

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        before, after = old["spec"], new["spec"]
        if "ExternalName" in (before.get("type"), after.get("type")):
            return
        address = after.get("clusterIP")
        if address and before.get("clusterIP") and address != before["clusterIP"]:
            causes.invalid("spec.clusterIPs[0]", after.get("clusterIPs") or [address], "may not change once set")

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.clusterIP": spec.get("clusterIP") or "", "spec.type": spec.get("type") or ""}


def _drop_former(new: Object, old: ReadOnly) -> None:
    """Take away what the former type has filled in and the new one may not have, where the caller left it as it was (upstream's
    dropTypeDependentFields): `kubectl patch` of the type alone is enough.
    """
    before, after = old.get("type"), new.get("type")
    if after == "ExternalName" != before:
        _drop_same(new, old, _ADDRESS_FIELDS)
    if before in _EXTERNAL and after not in _EXTERNAL:
        for port, former in zip(new.get("ports") or (), old.get("ports") or (), strict=False):
            _drop_same(port, former, ("nodePort",))
        if not new.get("externalIPs"):
            _drop_same(new, old, ("externalTrafficPolicy",))
    if before == "LoadBalancer" != after:
        _drop_same(new, old, ("allocateLoadBalancerNodePorts", "loadBalancerClass"))


def _drop_same(new: Object, old: ReadOnly, fields: tuple[str, ...]) -> None:
    for field in fields:
        if field in new and new[field] == old.get(field):
            del new[field]


def _check_affinity(spec: Mapping[str, Any], causes: Causes) -> None:
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds", AFFINITY_TIMEOUT_S)
        if not 0 < seconds <= _AFFINITY_TIMEOUT_MAX_S:
            path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            causes.invalid(path, seconds, f"must be greater than 0 and less than {_AFFINITY_TIMEOUT_MAX_S}")


def _check_type(spec: Mapping[str, Any], kind: str | None, causes: Causes) -> None:
    headless = spec.get("clusterIP") == "None"
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").removesuffix(".")
        if name:
            causes.each("spec.externalName", name, names.subdomain(name))
        else:
            causes.required("spec.externalName")
        if spec.get("clusterIP"):
            causes.forbidden("spec.clusterIPs[0]", "may not be set when `type` is 'ExternalName'")
    elif headless and kind in _EXTERNAL:
        causes.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    policy = spec.get("externalTrafficPolicy")
    if policy and kind not in _EXTERNAL and not spec.get("externalIPs"):
        causes.invalid("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services")
    elif policy and policy not in ("Cluster", "Local"):
        causes.unsupported("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    if spec.get("internalTrafficPolicy", "Cluster") not in ("Cluster", "Local"):
        causes.unsupported("spec.internalTrafficPolicy", spec["internalTrafficPolicy"], ("Cluster", "Local"))


def _check_ports(spec: Mapping[str, Any], kind: str | None, causes: Causes) -> None:
    ports = spec.get("ports") or ()
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        causes.required("spec.ports")
    taken: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name, protocol = port.get("name") or "", port.get("protocol") or ""
        if name:
            causes.each(f"{path}.name", name, names.label(name))
            if name in taken:
                causes.duplicate(f"{path}.name", name)
            taken.add(name)
        elif len(ports) > 1:
            causes.required(f"{path}.name")
        causes.each(f"{path}.port", port.get("port") or 0, names.port_number(port.get("port") or 0))
        causes.one_of(f"{path}.protocol", protocol, PROTOCOLS)
        target = port.get("targetPort")
        causes.each(f"{path}.targetPort", target, names.port_name(target) if isinstance(target, str) else names.port_number(target or 0))
        number = (protocol, port.get("port") or 0)
        if number in numbers:
            causes.duplicate(path, {"protocol": protocol, "port": number[1]})
        numbers.add(number)
        _check_node_port(port, path, kind, node_ports, causes)


def _check_node_port(port: Mapping[str, Any], path: str, kind: str | None, taken: set[tuple[str, int]], causes: Causes) -> None:
    number = port.get("nodePort")
    if not number:
        return
    if kind in ("ClusterIP", "ExternalName"):
        causes.forbidden(f"{path}.nodePort", f"may not be used when `type` is '{kind}'")
    elif (port.get("protocol", ""), number) in taken:
        causes.duplicate(f"{path}.nodePort", number)
    taken.add((port.get("protocol", ""), number))


RULES = ServiceRules()
