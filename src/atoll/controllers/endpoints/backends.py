"""What one pod contributes to a service: an address, ports, and whether it may get traffic.

Target ports may be names, which each pod resolves by its own containers, so that two pods of one service can differ in ports.
"""

from __future__ import annotations

from typing import NamedTuple

from atoll.client.addresses import is_special
from atoll.client.objects import Object, annotations_of, is_deleting, name_of, namespace_of, uid_of
from atoll.controllers.pods import is_finished, is_ready

TOLERATE_UNREADY = "service.alpha.kubernetes.io/tolerate-unready-endpoints"
HEADLESS_LABEL = "service.kubernetes.io/headless"
LAST_CHANGE = "endpoints.kubernetes.io/last-change-trigger-time"
ZONE_LABEL = "topology.kubernetes.io/zone"


class Port(NamedTuple):
    """One resolved port of a service; `name` is "" when the service has a single unnamed one."""

    name: str
    protocol: str
    port: int | None
    app_protocol: str | None

    def wire(self) -> Object:
        made: Object = {"name": self.name, "protocol": self.protocol}
        if self.port is not None:
            made["port"] = self.port
        if self.app_protocol:
            made["appProtocol"] = self.app_protocol
        return made


def selects(service: Object) -> dict[str, str] | None:
    """The selector of a service whose endpoints are ours to write; None where a user writes them or there are none."""
    spec = service["spec"]
    return None if spec.get("type") == "ExternalName" else (spec.get("selector") or None)


def is_headless(service: Object) -> bool:
    return str(service["spec"].get("clusterIP")) == "None"


def publishes_unready(service: Object) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses")) or annotations_of(service).get(TOLERATE_UNREADY) == "true"


def belongs(pod: Object, *, terminating: bool) -> bool:
    """The pod has an address and is neither finished nor, unless `terminating` ones count, on its way out."""
    return bool((pod.get("status") or {}).get("podIP")) and not is_finished(pod) and (terminating or not is_deleting(pod))


def addresses(pod: Object, family: str) -> list[str]:
    """The pod's addresses of `IPv4` or `IPv6`; none of a host's own, which a pod on the network of a host without any other has."""
    status = pod.get("status") or {}
    every = [entry["ip"] for entry in status.get("podIPs") or ()] or [status["podIP"]]
    return [address for address in every if (":" in address) == (family == "IPv6") and not is_special(address)]


def families(service: Object) -> list[str]:
    """The address types a service needs slices for."""
    named = service["spec"].get("ipFamilies")
    if named:
        return list(named)
    return ["IPv6"] if ":" in (service["spec"].get("clusterIP") or "") else ["IPv4"]


def resolve_ports(service: Object, pod: Object) -> tuple[Port, ...]:
    """The service's ports as this pod serves them; a named target port that the pod lacks is left out."""
    resolved = []
    for entry in service["spec"].get("ports") or ():
        protocol = entry.get("protocol", "TCP")
        number = _target(entry, protocol, pod)
        if number is not None:
            resolved.append(Port(entry.get("name", ""), protocol, number, entry.get("appProtocol")))
    return tuple(resolved)


def _target(entry: Object, protocol: str, pod: Object) -> int | None:
    target = entry.get("targetPort") or entry["port"]
    if isinstance(target, int):
        return target
    sidecars = [each for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in (*(pod["spec"].get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name") == target and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return int(target) if str(target).isdigit() else None


def conditions(service: Object, pod: Object) -> Object:
    """ready, serving and terminating of an endpoint: a terminating pod may still serve, but only counts as ready where unready ones are
    published.
    """
    serving = is_ready(pod)
    terminating = is_deleting(pod)
    return {"ready": publishes_unready(service) or (serving and not terminating), "serving": serving, "terminating": terminating}


def hostname(service: Object, pod: Object) -> str | None:
    """The pod's own name below the service, when it asked for one (pod.spec.hostname and subdomain)."""
    spec = pod["spec"]
    return spec.get("hostname") if spec.get("subdomain") == name_of(service) and spec.get("hostname") else None


def target_reference(pod: Object) -> Object:
    return {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)}
