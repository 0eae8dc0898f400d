"""The rules between claims and volumes: which volume suits a claim, and the marks both carry. Pure; binder, provisioner and scheduler
agree through it.

A claim and a volume are bound when the claim names the volume, the volume's claimRef names the claim by uid, and the claim is marked
bind-completed.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from atoll.client.nodes import matches_node_selector
from atoll.client.objects import Object, annotations_of, is_deleting, labels_of, name_of, namespace_of, uid_of
from atoll.client.selectors import matches
from atoll.units import parse_quantity

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONER_BETA = "volume.beta.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
CLASS_BETA = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def class_of(obj: Object) -> str | None:
    """The storage class of a claim or volume; "" asks for none, None leaves it to the default class."""
    named = annotations_of(obj).get(CLASS_BETA)
    if named is not None:
        return named
    value: str | None = obj["spec"].get("storageClassName")
    return value


def waits_for_consumer(storage_class: Object | None) -> bool:
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def default_class(classes: Iterable[Object]) -> Object | None:
    """The newest of the default classes, as admission chooses."""
    defaults = [each for each in classes if annotations_of(each).get(DEFAULT_CLASS) == "true"]
    return max(defaults, key=lambda each: (each["metadata"].get("creationTimestamp", ""), name_of(each)), default=None)


def requested(claim: Object) -> Decimal:
    return parse_quantity(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))


def capacity(volume: Object) -> Decimal:
    return parse_quantity((volume["spec"].get("capacity") or {}).get("storage", "0"))


def is_bound(claim: Object) -> bool:
    return bool(claim["spec"].get("volumeName")) and BIND_COMPLETED in annotations_of(claim)


def refers_to(volume: Object, claim: Object) -> bool:
    """The volume is bound to this claim, or kept for it by name."""
    reference = volume["spec"].get("claimRef")
    if reference is None:
        return False
    if (reference.get("namespace"), reference.get("name")) != (namespace_of(claim), name_of(claim)):
        return False
    return not reference.get("uid") or bool(reference["uid"] == uid_of(claim))


def mismatch(volume: Object, claim: Object) -> str | None:
    """Why the volume cannot serve the claim; None when it can."""
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if (class_of(volume) or "") != (class_of(claim) or ""):
        return "storageClassName does not match"
    if volume["spec"].get("volumeMode", "Filesystem") != claim["spec"].get("volumeMode", "Filesystem"):
        return "incompatible volumeMode"
    if not set(claim["spec"].get("accessModes") or ()) <= set(volume["spec"].get("accessModes") or ()):
        return "incompatible accessMode"
    return None


def reachable(volume: Object, node: Object) -> bool:
    """The volume's node affinity lets a pod on that node use it."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return required is None or matches_node_selector(required, node)


def find_match(claim: Object, volumes: Iterable[Object], *, only_reserved: bool = False, node: Object | None = None) -> Object | None:
    """The volume kept for the claim, else the smallest free one that suits. `only_reserved` looks for the former alone."""
    best: Object | None = None
    selector = claim["spec"].get("selector")
    for volume in volumes:
        if is_deleting(volume) or mismatch(volume, claim) is not None:
            continue
        if node is not None and not reachable(volume, node):
            continue
        if refers_to(volume, claim):
            return volume
        free = volume["spec"].get("claimRef") is None and (volume.get("status") or {}).get("phase") == "Available"
        if only_reserved or not free or (selector is not None and not matches(selector, labels_of(volume))):
            continue
        if best is None or (capacity(volume), name_of(volume)) < (capacity(best), name_of(best)):
            best = volume
    return best


def claim_reference(claim: Object) -> Object:
    """The claimRef a volume carries."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace_of(claim),
        "name": name_of(claim),
        "uid": uid_of(claim),
        "resourceVersion": claim["metadata"].get("resourceVersion", ""),
    }


def claim_names(pod: Object) -> list[str]:
    """The claims a pod uses; an ephemeral volume's claim is named after pod and volume."""
    names = []
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            names.append(volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            names.append(f"{name_of(pod)}-{volume['name']}")
    return names
