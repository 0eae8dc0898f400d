"""Rows of nodes, namespaces, events, configuration and accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.table_format import NONE, UNKNOWN, Age, columns, condition, human_duration, name_of

NODE = columns("Name, Status, Roles, Age, Version; Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime")
NAMESPACE = columns("Name, Status, Age")
EVENT = (
    *columns("Last Seen, Type, Reason, Object"),
    *columns(";Subobject, Source"),
    *columns("Message"),
    *columns(";First Seen, Count:int, Name"),
)
CONFIG_MAP = columns("Name, Data:int, Age")
SECRET = columns("Name, Type, Data:int, Age")
SERVICE_ACCOUNT = columns("Name, Secrets:int, Age")
RESOURCE_QUOTA = columns("Name, Request, Limit, Age")
LEASE = columns("Name, Holder, Age")
PRIORITY_CLASS = columns("Name, Value:int, Global-Default:bool, Age, PreemptionPolicy")
RUNTIME_CLASS = columns("Name, Handler, Age")
ROLE = columns("Name, Created At")
ROLE_BINDING = columns("Name, Role, Age; Users, Groups, ServiceAccounts")
SIGNING_REQUEST = columns("Name, Age, SignerName, Requestor, RequestedDuration, Condition")
COMPONENT_STATUS = columns("Name, Status, Message, Error")
_ROLE_LABEL = "node-role.kubernetes.io/"

Object = Mapping[str, Any]


def node(obj: Object, age: Age) -> list[Any]:
    status, spec = obj.get("status") or {}, obj.get("spec") or {}
    labels = (obj.get("metadata") or {}).get("labels") or {}
    ready = condition(status, "Ready")
    state = "Unknown" if not ready else "Ready" if ready.get("status") == "True" else "NotReady"
    roles = {key.removeprefix(_ROLE_LABEL) for key in labels if key.startswith(_ROLE_LABEL)} | {labels.get("kubernetes.io/role")}
    addresses = {entry.get("type"): entry.get("address") for entry in reversed(status.get("addresses") or ())}
    info = status.get("nodeInfo") or {}
    return [
        name_of(obj),
        f"{state},SchedulingDisabled" if spec.get("unschedulable") else state,
        ",".join(sorted(role for role in roles if role)) or NONE,
        age.of(obj),
        info.get("kubeletVersion") or "",
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def namespace(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), (obj.get("status") or {}).get("phase") or "", age.of(obj)]


def event(obj: Object, age: Age) -> list[Any]:
    """Of core/v1 or events.k8s.io/v1: the same facts under other names."""
    involved, series = obj.get("involvedObject") or obj.get("regarding") or {}, obj.get("series") or {}
    first_seen = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp")
    last_seen = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    first = age.since(first_seen or obj.get("eventTime"))
    last = age.since(last_seen) if last_seen else first
    count = obj.get("count") or obj.get("deprecatedCount") or 1
    if series:
        last, count = age.since(series.get("lastObservedTime")), series.get("count") or 0
    kind, name = (involved.get("kind") or "").lower(), involved.get("name")
    return [
        last,
        obj.get("type") or "",
        obj.get("reason") or "",
        f"{kind}/{name}" if name else kind,
        involved.get("fieldPath") or "",
        _source(obj),
        (obj.get("message") or obj.get("note") or "").strip(),
        first,
        count,
        name_of(obj),
    ]


def _source(obj: Object) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    who = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    where = source.get("host") or obj.get("reportingInstance") or ""
    return f"{who}, {where}" if where else who


def config_map(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age.of(obj)]


def secret(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), obj.get("type") or "", len(obj.get("data") or ()), age.of(obj)]


def service_account(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), len(obj.get("secrets") or ()), age.of(obj)]


def resource_quota(obj: Object, age: Age) -> list[Any]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    shown = {name: f"{name}: {used.get(name, 0)}/{hard[name]}" for name in sorted(hard)}
    limits = [text for name, text in shown.items() if name.startswith("limits")]
    requests = [text for name, text in shown.items() if not name.startswith("limits")]
    return [name_of(obj), ", ".join(requests), ", ".join(limits), age.of(obj)]


def lease(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), (obj.get("spec") or {}).get("holderIdentity") or "", age.of(obj)]


def priority_class(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), obj.get("value") or 0, bool(obj.get("globalDefault")), age.of(obj), obj.get("preemptionPolicy") or ""]


def runtime_class(obj: Object, age: Age) -> list[Any]:
    return [name_of(obj), obj.get("handler") or "", age.of(obj)]


def role(obj: Object, _: Age) -> list[Any]:
    return [name_of(obj), (obj.get("metadata") or {}).get("creationTimestamp")]


def role_binding(obj: Object, age: Age) -> list[Any]:
    reference, subjects = obj.get("roleRef") or {}, obj.get("subjects") or ()
    named = {kind: [s.get("name") or "" for s in subjects if s.get("kind") == kind] for kind in ("User", "Group")}
    accounts = [f"{s.get('namespace', '')}/{s.get('name', '')}" for s in subjects if s.get("kind") == "ServiceAccount"]
    return [
        name_of(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        age.of(obj),
        ", ".join(named["User"]),
        ", ".join(named["Group"]),
        ", ".join(accounts),
    ]


def signing_request(obj: Object, age: Age) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    seconds = spec.get("expirationSeconds")
    types = [entry.get("type") for entry in status.get("conditions") or ()]
    state = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    if "Failed" in types:
        state += ",Failed"
    if status.get("certificate"):
        state += ",Issued"
    return [
        name_of(obj),
        age.of(obj),
        spec.get("signerName") or NONE,
        spec.get("username") or "",
        human_duration(seconds) if seconds else NONE,
        state,
    ]


def component_status(obj: Object, _: Age) -> list[Any]:
    healthy = condition(obj, "Healthy")
    state = {"True": "Healthy", "False": "Unhealthy"}.get(healthy.get("status") or "", "Unknown")
    return [name_of(obj), state, healthy.get("message") or "", healthy.get("error") or ""]
