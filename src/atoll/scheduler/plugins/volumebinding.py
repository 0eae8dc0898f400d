"""VolumeBinding: the pod's claims decide which nodes can have it.

A bound claim leads where its volume can be reached. One that waits for its first consumer goes to a node where a free volume suits it
or where its class can make one; `plan` says which, for the node that was chosen, and `atoll.scheduler.binding` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.client.nodes import matches_node_selector
from atoll.client.objects import Object, annotations_of, is_deleting, make_key, name_of, namespace_of
from atoll.client.volumes import NO_PROVISIONER, SELECTED_NODE, claim_names, class_of, find_match, is_bound, reachable, waits_for_consumer
from atoll.scheduler.plugins.base import Filter, Rejection, Unschedulable
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

UNREACHABLE = Rejection(("node(s) didn't match PersistentVolume's node affinity",))
NO_VOLUME = Rejection(("node(s) didn't find available persistent volumes to bind",))


@dataclass(slots=True)
class VolumePlan:
    """What must be written before the pod can be bound: volumes to reserve, and claims whose provisioner must be told the node."""

    reserve: list[tuple[Object, Object]] = field(default_factory=list)  # volume, claim
    provision: list[Object] = field(default_factory=list)
    waiting: list[Object] = field(default_factory=list)  # claims to be bound before the pod is


@dataclass(frozen=True, slots=True)
class _Claims:
    bound: list[Object]  # volumes
    delayed: list[Object]  # claims


def _classify(info: PodInfo, snapshot: Snapshot) -> _Claims | None:
    """Raises Unschedulable when a claim makes every node impossible."""
    names = claim_names(info.pod)
    if not names:
        return None
    bound, delayed = [], []
    for name in names:
        claim = snapshot.storage.claim(make_key(namespace_of(info.pod), name))
        if claim is None:
            raise Unschedulable(f'persistentvolumeclaim "{name}" not found')
        if is_deleting(claim):
            raise Unschedulable(f'persistentvolumeclaim "{name}" is being deleted')
        if (claim.get("status") or {}).get("phase") == "Lost":
            raise Unschedulable(
                f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim["spec"].get("volumeName")}"'
            )
        if is_bound(claim):
            volume = snapshot.storage.volume(claim["spec"]["volumeName"])
            if volume is None:
                raise Unschedulable(
                    f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim["spec"]["volumeName"]}"'
                )
            bound.append(volume)
        elif claim["spec"].get("volumeName") or not waits_for_consumer(snapshot.storage.storage_class(class_of(claim) or "")):
            raise Unschedulable("pod has unbound immediate PersistentVolumeClaims")
        else:
            delayed.append(claim)
    return _Claims(bound, delayed)


def prepare(info: PodInfo, snapshot: Snapshot) -> Filter | None:
    claims = _classify(info, snapshot)
    if claims is None:
        return None

    def test(node: NodeInfo) -> Rejection | None:
        if not all(reachable(volume, node.node) for volume in claims.bound):
            return UNREACHABLE
        return None if _assign(claims.delayed, node.node, snapshot) is not None else NO_VOLUME

    return test


def plan(info: PodInfo, node: Object, snapshot: Snapshot) -> VolumePlan:
    """For a node that passed the filter."""
    claims = _classify(info, snapshot)
    if claims is None or not claims.delayed:
        return VolumePlan()
    assigned = _assign(claims.delayed, node, snapshot)
    if assigned is None:
        raise Unschedulable(NO_VOLUME.reasons[0])
    return assigned


def _assign(claims: list[Object], node: Object, snapshot: Snapshot) -> VolumePlan | None:
    """A volume or a provisioner for each claim; None when one has neither on this node."""
    made = VolumePlan(waiting=list(claims))
    taken: set[str] = set()
    for claim in claims:
        selected = annotations_of(claim).get(SELECTED_NODE)
        if selected is not None and selected != name_of(node):
            return None  # its provisioner is at work for another node
        free = [volume for volume in snapshot.storage.volumes() if name_of(volume) not in taken]
        volume = find_match(claim, free, node=node) if selected is None else None
        if volume is not None:
            taken.add(name_of(volume))
            made.reserve.append((volume, claim))
            continue
        storage_class = snapshot.storage.storage_class(class_of(claim) or "")
        if storage_class is None or storage_class["provisioner"] == NO_PROVISIONER or not _allows(storage_class, node):
            return None
        made.provision.append(claim)
    return made


def _allows(storage_class: Object, node: Object) -> bool:
    """AllowedTopologies restricts where the class makes volumes."""
    terms = storage_class.get("allowedTopologies")
    if not terms:
        return True
    expressions = [[{**each, "operator": "In"} for each in term.get("matchLabelExpressions") or ()] for term in terms]
    return matches_node_selector({"nodeSelectorTerms": [{"matchExpressions": each} for each in expressions]}, node)
