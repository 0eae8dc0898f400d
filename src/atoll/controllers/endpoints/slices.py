"""EndpointSlices of a service: at most a hundred endpoints each, changed as little as possible. Pure: service, pods and slices in,
changes out.

Slices are grouped by address type and ports. An endpoint stays in the slice it is in; new ones fill slices that are open or change
anyway, then new slices; empty slices go, but a service always keeps one, so that a watcher can tell "no endpoints" from "not looked at
yet".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.client.objects import Object, annotations_of, copy_of, labels_of, name_of, namespace_of, owner_reference
from atoll.client.resources import SERVICES
from atoll.controllers.endpoints.backends import (
    HEADLESS_LABEL,
    LAST_CHANGE,
    ZONE_LABEL,
    Port,
    addresses,
    belongs,
    conditions,
    families,
    hostname,
    is_headless,
    resolve_ports,
    target_reference,
)

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS = 100  # kube-controller-manager's --max-endpoints-per-slice

Group = tuple[str, tuple[Port, ...]]  # address type and ports


@dataclass(slots=True)
class Changes:
    """What to write. Updates carry the resourceVersion they were planned on."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def make_endpoint(service: Object, pod: Object, found: Sequence[str], nodes: Mapping[str, Object]) -> Object:
    node = pod["spec"].get("nodeName")
    endpoint: Object = {"addresses": list(found), "conditions": conditions(service, pod), "targetRef": target_reference(pod)}
    if (name := hostname(service, pod)) is not None:
        endpoint["hostname"] = name
    if node:
        endpoint["nodeName"] = node
        zone = labels_of(nodes[node]).get(ZONE_LABEL) if node in nodes else None
        if zone:
            endpoint["zone"] = zone
    return endpoint


def desired(service: Object, pods: Sequence[Object], nodes: Mapping[str, Object]) -> dict[Group, dict[str, Object]]:
    """Endpoints by group, each by the uid of its pod."""
    groups: dict[Group, dict[str, Object]] = {}
    for family in families(service):
        for pod in pods:
            if not belongs(pod, terminating=True):
                continue
            found = addresses(pod, family)
            if found:
                group = (family, resolve_ports(service, pod))
                groups.setdefault(group, {})[pod["metadata"]["uid"]] = make_endpoint(service, pod, found, nodes)
    return groups


def slice_labels(service: Object) -> dict[str, str]:
    labels = {key: value for key, value in labels_of(service).items() if key not in (HEADLESS_LABEL, SERVICE_LABEL, MANAGED_LABEL)}
    if is_headless(service):
        labels[HEADLESS_LABEL] = ""
    return labels | {SERVICE_LABEL: name_of(service), MANAGED_LABEL: MANAGER}


def plan(service: Object, pods: Sequence[Object], nodes: Mapping[str, Object], existing: Sequence[Object], trigger: str | None) -> Changes:
    """`existing` are the slices this controller manages for the service; `trigger` is when the newest cause of the change happened."""
    changes = Changes()
    groups = desired(service, pods, nodes)
    by_group: dict[Group, list[Object]] = {}
    for each in existing:
        by_group.setdefault(_group_of(each), []).append(each)
    for group in [*groups, *(group for group in by_group if group not in groups)]:
        _plan_group(service, group, groups.get(group, {}), by_group.get(group, []), trigger, changes)
    _keep_one(service, existing, changes, trigger)
    return changes


def _plan_group(
    service: Object, group: Group, wanted: dict[str, Object], existing: list[Object], trigger: str | None, changes: Changes
) -> None:
    labels = slice_labels(service)
    left = dict(wanted)
    kept = []
    for each in sorted(existing, key=lambda entry: (entry["metadata"].get("creationTimestamp", ""), name_of(entry))):
        stay = []
        for endpoint in each.get("endpoints") or ():
            uid = (endpoint.get("targetRef") or {}).get("uid")
            if uid in left:
                stay.append(left.pop(uid))
        kept.append((each, stay))
    new = list(left.values())
    # Slices that change anyway take new endpoints first: one write instead of two.
    for each, stay in sorted(kept, key=lambda entry: entry[1] == (entry[0].get("endpoints") or [])):
        room = MAX_ENDPOINTS - len(stay)
        stay.extend(new[:room])
        new = new[room:]
        if not stay:
            changes.delete.append(each)
        elif stay != (each.get("endpoints") or []) or labels != labels_of(each):
            changes.update.append(_filled(copy_of(each), labels, stay, trigger))
    for start in range(0, len(new), MAX_ENDPOINTS):
        changes.create.append(_filled(_empty(service, group), labels, new[start : start + MAX_ENDPOINTS], trigger))


def _keep_one(service: Object, existing: Sequence[Object], changes: Changes, trigger: str | None) -> None:
    """One placeholder for each address type that would otherwise have no slice."""
    labels = slice_labels(service)
    gone = {name_of(each) for each in changes.delete}
    for family in families(service):
        staying = [each for each in existing if each["addressType"] == family and name_of(each) not in gone]
        if staying or any(each["addressType"] == family for each in changes.create):
            continue
        leaving = next((each for each in changes.delete if each["addressType"] == family), None)
        if leaving is None:
            changes.create.append(_filled(_empty(service, (family, ())), labels, [], trigger))
            continue
        changes.delete.remove(leaving)
        if (leaving.get("endpoints") or []) or labels != labels_of(leaving):
            changes.update.append(_filled(copy_of(leaving), labels, [], trigger))


def _group_of(each: Object) -> Group:
    ports = tuple(
        Port(port.get("name") or "", port.get("protocol", "TCP"), port.get("port"), port.get("appProtocol"))
        for port in each.get("ports") or ()
    )
    return each["addressType"], ports


def _empty(service: Object, group: Group) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{name_of(service)}-",
            "namespace": namespace_of(service),
            "ownerReferences": [owner_reference(service, SERVICES)],
        },
        "addressType": group[0],
        "ports": [port.wire() for port in group[1]],
    }


def _filled(each: Object, labels: dict[str, str], endpoints: list[Object], trigger: str | None) -> Object:
    each["metadata"]["labels"] = labels
    if trigger:
        each["metadata"]["annotations"] = annotations_of(each) | {LAST_CHANGE: trigger}
    each["endpoints"] = endpoints
    return each
