"""The flow schemas and priority levels of upstream's configuration (apiserver/pkg/apis/flowcontrol/bootstrap): pure data.

`exempt` and `catch-all` must be there; the others are suggestions, which administrators may change for good by the annotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

GROUP = "flowcontrol.apiserver.k8s.io"
SCHEMAS, LEVELS = "flowschemas", "prioritylevelconfigurations"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
_ANY = ("*",)
_EVERYTHING: tuple[dict[str, Any], ...] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)
_EVERYBODY = ("Group system:unauthenticated", "Group system:authenticated")
_ACCOUNTS = "ServiceAccount kube-system/*"
_MANAGER, _SCHEDULER = "User system:kube-controller-manager", "User system:kube-scheduler"


def _resource(groups: tuple[str, ...], resources: str, verbs: tuple[str, ...] = _ANY, *, cluster: bool = False) -> dict[str, Any]:
    rule: dict[str, Any] = {"verbs": list(verbs), "apiGroups": list(groups), "resources": resources.split()}
    return {**rule, **({"clusterScope": True} if cluster else {}), "namespaces": ["*"]}


_ELECTION = (_resource(("coordination.k8s.io",), "leases", ("get", "create", "update")),)
# name → precedence, level, distinguisher, subjects, rules
FLOW_SCHEMAS: dict[str, tuple[int, str, str, tuple[str, ...], tuple[dict[str, Any], ...]]] = {
    "exempt": (1, "exempt", "", ("Group system:masters",), _EVERYTHING),
    "probes": (2, "exempt", "", _EVERYBODY, ({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},)),
    "system-leader-election": (100, "leader-election", "ByUser", (_MANAGER, _SCHEDULER, _ACCOUNTS), _ELECTION),
    "endpoint-controller": (
        150,
        "workload-high",
        "ByUser",
        (_MANAGER, "ServiceAccount kube-system/endpoint-controller", "ServiceAccount kube-system/endpointslicemirroring-controller"),
        (
            _resource(("",), "endpoints", ("get", "create", "update")),
            _resource(("discovery.k8s.io",), "endpointslices", ("get", "create", "update", "delete")),
        ),
    ),
    "workload-leader-election": (200, "leader-election", "ByUser", (_ACCOUNTS,), _ELECTION),
    "system-node-high": (
        400,
        "node-high",
        "ByUser",
        ("Group system:nodes",),
        (_resource(("",), "nodes nodes/status", cluster=True), _resource(("coordination.k8s.io",), "leases")),
    ),
    "system-nodes": (500, "system", "ByUser", ("Group system:nodes",), _EVERYTHING),
    "kube-controller-manager": (800, "workload-high", "ByNamespace", (_MANAGER,), _EVERYTHING),
    "kube-scheduler": (800, "workload-high", "ByNamespace", (_SCHEDULER,), _EVERYTHING),
    "kube-system-service-accounts": (900, "workload-high", "ByNamespace", (_ACCOUNTS,), _EVERYTHING),
    "service-accounts": (9000, "workload-low", "ByUser", ("Group system:serviceaccounts",), _EVERYTHING),
    "global-default": (9900, "global-default", "ByUser", _EVERYBODY, _EVERYTHING),
    "catch-all": (10000, "catch-all", "ByUser", _EVERYBODY, _EVERYTHING),
}
# name → shares, percent that may be lent, queues, hand, length; no queues: what finds no seat is rejected
LIMITED: dict[str, tuple[int, int, tuple[int, int, int] | None]] = {
    "system": (30, 33, (64, 6, 50)),
    "node-high": (40, 25, (64, 6, 50)),
    "leader-election": (10, 0, (16, 4, 50)),
    "workload-high": (40, 50, (128, 6, 50)),
    "workload-low": (100, 90, (128, 6, 50)),
    "global-default": (20, 50, (128, 6, 50)),
    "catch-all": (5, 0, None),
}


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Plural and object."""
    yield LEVELS, _object("PriorityLevelConfiguration", "exempt", {"type": "Exempt", "exempt": _shares(0, 0)})
    for name, (shares, lendable, queues) in LIMITED.items():
        response: dict[str, Any] = {"type": "Reject"}
        if queues:
            response = {"type": "Queue", "queuing": dict(zip(("queues", "handSize", "queueLengthLimit"), queues, strict=True))}
        limits: dict[str, Any] = {"type": "Limited", "limited": {**_shares(shares, lendable), "limitResponse": response}}
        yield LEVELS, _object("PriorityLevelConfiguration", name, limits)
    for name, (precedence, level, distinguisher, subjects, rules) in FLOW_SCHEMAS.items():
        rule: dict[str, Any] = {
            "subjects": [_subject(subject) for subject in subjects],
            "resourceRules": [each for each in rules if "resources" in each],
            "nonResourceRules": [each for each in rules if "nonResourceURLs" in each],
        }
        spec: dict[str, Any] = {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            **({"distinguisherMethod": {"type": distinguisher}} if distinguisher else {}),
            "rules": [{key: value for key, value in rule.items() if value}],
        }
        yield SCHEMAS, _object("FlowSchema", name, spec)


def _shares(shares: int, lendable: int) -> dict[str, int]:
    return {"nominalConcurrencyShares": shares, "lendablePercent": lendable}


def _subject(text: str) -> dict[str, Any]:
    kind, _, name = text.partition(" ")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "serviceAccount": {"namespace": namespace, "name": account}}
    return {"kind": kind, kind.lower(): {"name": name}}


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": f"{GROUP}/v1", "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec}
