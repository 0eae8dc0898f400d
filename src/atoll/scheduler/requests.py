"""What a pod asks for: its effective resource requests and host ports, reckoned once a pod.

CPU counts in thousandths, everything else in whole units (bytes, devices). Init containers run one after the other beside the sidecars
started before them, so the pod needs the largest moment of its life (core/v1, "resource sharing within containers").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from atoll.client.objects import Object
from atoll.units import parse_quantity

Amounts = dict[str, int]

DEFAULT_CPU = 100  # thousandths; what scoring assumes of a container that asks for nothing
DEFAULT_MEMORY = 200 * 1024 * 1024


class HostPort(NamedTuple):
    ip: str
    protocol: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        same = self.port == other.port and self.protocol == other.protocol
        return same and (self.ip == other.ip or "0.0.0.0" in (self.ip, other.ip))


class PodInfo(NamedTuple):
    """A pod and what follows from its spec. `scored` are requests with defaults for those that ask for none."""

    pod: Object
    requests: Amounts
    scored: tuple[int, int]
    ports: tuple[HostPort, ...]


def priority_of(pod: Object) -> int:
    return int(pod["spec"].get("priority") or 0)


def pod_info(pod: Object) -> PodInfo:
    return PodInfo(pod, pod_requests(pod), _scored(pod), host_ports(pod))


def amounts(resources: Mapping[str, str] | None) -> Amounts:
    """A resource list as integers, fractions rounded up."""
    return {
        name: math.ceil(parse_quantity(value) * 1000) if name == "cpu" else math.ceil(parse_quantity(value))
        for name, value in (resources or {}).items()
    }


def pod_requests(pod: Object) -> Amounts:
    spec = pod["spec"]
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, _requests(container))
    peak: Amounts = {}
    sidecars: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(total, asked)
            _add(sidecars, asked)
            _raise_to(peak, sidecars)
        else:
            moment = dict(sidecars)
            _add(moment, asked)
            _raise_to(peak, moment)
    _raise_to(total, peak)
    total.update(amounts((spec.get("resources") or {}).get("requests")))  # pod-level requests overrule the sum
    _add(total, amounts(spec.get("overhead")))
    return total


def host_ports(pod: Object) -> tuple[HostPort, ...]:
    sidecars = [each for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"]
    return tuple(
        HostPort(port.get("hostIP") or "0.0.0.0", port.get("protocol", "TCP"), port["hostPort"])
        for container in (*(pod["spec"].get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def _requests(container: Object) -> Amounts:
    return amounts((container.get("resources") or {}).get("requests"))


def _scored(pod: Object) -> tuple[int, int]:
    cpu = memory = 0
    for container in pod["spec"].get("containers") or ():
        asked = _requests(container)
        cpu += asked.get("cpu", DEFAULT_CPU)
        memory += asked.get("memory", DEFAULT_MEMORY)
    return cpu, memory


def _add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: Amounts, floor: Mapping[str, int]) -> None:
    for name, amount in floor.items():
        total[name] = max(total.get(name, 0), amount)
