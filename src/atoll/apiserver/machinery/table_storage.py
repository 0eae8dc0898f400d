"""Rows of volumes, claims, classes, drivers, and of what extends the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.table_format import UNSET, Age, access_modes, columns, condition, is_deleted, name_of

VOLUME = columns(
    "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age; VolumeMode"
)
CLAIM = columns("Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age; VolumeMode")
STORAGE_CLASS = columns("Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion:bool, Age")
ATTACHMENT = columns("Name, Attacher, PV, Node, Attached:bool, Age")
ATTRIBUTES_CLASS = columns("Name, DriverName, Age")
CSI_NODE = columns("Name, Drivers:int, Age")
CSI_DRIVER = columns(
    "Name, AttachRequired:bool, PodInfoOnMount:bool, StorageCapacity:bool, TokenRequests, RequiresRepublish:bool, Modes, Age"
)
WEBHOOKS = columns("Name, Webhooks:int, Age")
VALIDATING_POLICY = columns("Name, Validations:int, ParamKind, Age")
MUTATING_POLICY = columns("Name, Mutations:int, ParamKind, Age")
POLICY_BINDING = columns("Name, PolicyName, ParamRef, Age")
API_SERVICE = columns("Name, Service, Available, Age")
FLOW_SCHEMA = columns("Name, PriorityLevel, MatchingPrecedence:int, DistinguisherMethod, Age, MissingPL")
PRIORITY_LEVEL = columns("Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age")
RESOURCE_CLAIM = columns("Name, State, Age")
RESOURCE_SLICE = columns("Name, Node, Driver, Pool, Age")
AGED = columns("Name, Age")
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")

Object = Mapping[str, Any]


def _annotations(obj: Object) -> Object:
    return (obj.get("metadata") or {}).get("annotations") or {}


def _class_of(obj: Object, spec: Object) -> str:
    return _annotations(obj).get(_CLASS_ANNOTATION) or spec.get("storageClassName") or ""


def volume(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    claim_ref = spec.get("claimRef") or {}
    return [
        name_of(obj),
        (spec.get("capacity") or {}).get("storage") or "",
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        "Terminating" if is_deleted(obj) else status.get("phase") or "",
        f"{claim_ref.get('namespace', '')}/{claim_ref.get('name', '')}" if claim_ref.get("name") else "",
        _class_of(obj, spec),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason") or "",
        age.of(obj),
        spec.get("volumeMode") or UNSET,
    ]


def claim(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    bound = bool(spec.get("volumeName"))
    return [
        name_of(obj),
        "Terminating" if is_deleted(obj) else status.get("phase") or "",
        spec.get("volumeName") or "",
        (status.get("capacity") or {}).get("storage") or "" if bound else "",
        access_modes(status.get("accessModes")) if bound else "",
        _class_of(obj, spec),
        spec.get("volumeAttributesClassName") or UNSET,
        age.of(obj),
        spec.get("volumeMode") or UNSET,
    ]


def storage_class(obj: Object, age: Age) -> list[Any]:
    default = any(_annotations(obj).get(name) == "true" for name in _DEFAULT_CLASS)
    return [
        f"{name_of(obj)} (default)" if default else name_of(obj),
        obj.get("provisioner") or "",
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age.of(obj),
    ]


def attachment(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    volume_name = (spec.get("source") or {}).get("persistentVolumeName") or ""
    attached = bool((obj.get("status") or {}).get("attached"))
    return [name_of(obj), spec.get("attacher") or "", volume_name, spec.get("nodeName") or "", attached, age.of(obj)]


def attributes_class(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), obj.get("driverName") or "", age.of(obj)]


def csi_node(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), len((obj.get("spec") or {}).get("drivers") or ()), age.of(obj)]


def csi_driver(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        name_of(obj),
        spec.get("attachRequired", True),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        ",".join(token.get("audience") or "" for token in spec.get("tokenRequests") or ()) or UNSET,
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()),
        age.of(obj),
    ]


def webhooks(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), len(obj.get("webhooks") or ()), age.of(obj)]


def policy(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    parameters = spec.get("paramKind")
    shown = f"{parameters.get('apiVersion')}/{parameters.get('kind')}" if parameters else UNSET
    return [name_of(obj), len(spec.get("validations") or spec.get("mutations") or ()), shown, age.of(obj)]


def policy_binding(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    reference = spec.get("paramRef")
    shown = UNSET
    if reference:
        name = reference.get("name") or "*"
        shown = f"{reference['namespace']}/{name}" if reference.get("namespace") else f"*/{name}"
    return [name_of(obj), spec.get("policyName") or "", shown, age.of(obj)]


def api_service(obj: Object, age: Age) -> list[Any]:
    service, status = (obj.get("spec") or {}).get("service"), obj.get("status") or {}
    available = condition(status, "Available")
    state = available.get("status") or "Unknown"
    if state != "True" and available.get("reason"):
        state = f"{state} ({available['reason']})"
    return [name_of(obj), f"{service.get('namespace')}/{service.get('name')}" if service else "Local", state, age.of(obj)]


def flow_schema(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        name_of(obj),
        (spec.get("priorityLevelConfiguration") or {}).get("name") or "",
        spec.get("matchingPrecedence") or 0,
        (spec.get("distinguisherMethod") or {}).get("type") or "<none>",
        age.of(obj),
        condition(obj.get("status") or {}, "Dangling").get("status") or "?",
    ]


def priority_level(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    shares = (limited or spec.get("exempt") or {}).get("nominalConcurrencyShares")
    queues = [str(queuing[field]) if field in queuing else "<none>" for field in ("queues", "handSize", "queueLengthLimit")]
    return [name_of(obj), spec.get("type") or "", "<none>" if shares is None else str(shares), *queues, age.of(obj)]


def resource_claim(obj: Object, age: Age) -> list[Any]:
    status = obj.get("status") or {}
    states = [word for word, field in (("allocated", "allocation"), ("reserved", "reservedFor")) if status.get(field)]
    shown = ",".join(["deleted", *states] if is_deleted(obj) else states) or "pending"
    return [name_of(obj), shown, age.of(obj)]


def resource_slice(obj: Object, age: Age) -> list[Any]:
    spec = obj.get("spec") or {}
    return [name_of(obj), spec.get("nodeName") or "", spec.get("driver") or "", (spec.get("pool") or {}).get("name") or "", age.of(obj)]


def aged(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), age.of(obj)]
