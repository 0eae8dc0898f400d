"""Endpoints of a service, the older shape: addresses with the same ports share a subset. Pure: service and pods in, object out.

Superseded by EndpointSlices, but still what `kubectl get endpoints` and many clients read. At most a thousand addresses are written, as
upstream, and then said so in an annotation.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.client.objects import Object, annotations_of, labels_of, name_of, namespace_of
from atoll.controllers.endpoints.backends import (
    HEADLESS_LABEL,
    LAST_CHANGE,
    Port,
    addresses,
    belongs,
    families,
    hostname,
    is_headless,
    publishes_unready,
    resolve_ports,
    target_reference,
)
from atoll.controllers.pods import is_ready

MAX_ADDRESSES = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_LABEL = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"


def make_subsets(service: Object, pods: Sequence[Object]) -> list[Object]:
    """The subsets in a stable order, so that equal input gives equal output."""
    family = families(service)[0]
    groups: dict[tuple[Port, ...], tuple[list[Object], list[Object]]] = {}
    ordered = sorted((pod for pod in pods if belongs(pod, terminating=False)), key=lambda pod: (not is_ready(pod), pod["status"]["podIP"]))
    taken = 0
    for pod in ordered:
        found = addresses(pod, family)
        ports = resolve_ports(service, pod)
        if not found or (not ports and not is_headless(service)) or taken == MAX_ADDRESSES:
            continue
        taken += 1
        ready, unready = groups.setdefault(ports, ([], []))
        (ready if publishes_unready(service) or is_ready(pod) else unready).append(_address(service, pod, found[0]))
    return [_subset(ports, ready, unready) for ports, (ready, unready) in sorted(groups.items(), key=lambda item: str(item[0]))]


def make_endpoints(service: Object, pods: Sequence[Object], old: Object | None, trigger: str | None) -> Object:
    """The whole object, on top of the old one where there is one."""
    labels = {key: value for key, value in labels_of(service).items() if key != HEADLESS_LABEL} | {MANAGED_LABEL: MANAGER}
    if is_headless(service):
        labels[HEADLESS_LABEL] = ""
    subsets = make_subsets(service, pods)
    annotations = {key: value for key, value in annotations_of(old or {"metadata": {}}).items() if key != OVER_CAPACITY}
    if sum(belongs(pod, terminating=False) for pod in pods) > MAX_ADDRESSES:
        annotations[OVER_CAPACITY] = "truncated"
    if trigger and (old is None or (old.get("subsets") or []) != subsets):
        annotations[LAST_CHANGE] = trigger
    metadata = dict(old["metadata"]) if old else {"name": name_of(service), "namespace": namespace_of(service)}
    metadata["labels"] = labels
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    made: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
    return made | ({"subsets": subsets} if subsets else {})


def _address(service: Object, pod: Object, ip: str) -> Object:
    made: Object = {"ip": ip, "targetRef": target_reference(pod)}
    if pod["spec"].get("nodeName"):
        made["nodeName"] = pod["spec"]["nodeName"]
    if (name := hostname(service, pod)) is not None:
        made["hostname"] = name
    return made


def _subset(ports: tuple[Port, ...], ready: list[Object], unready: list[Object]) -> Object:
    made: Object = {}
    if ready:
        made["addresses"] = ready
    if unready:
        made["notReadyAddresses"] = unready
    if ports:
        made["ports"] = [{key: value for key, value in port.wire().items() if value != ""} for port in ports]
    return made
