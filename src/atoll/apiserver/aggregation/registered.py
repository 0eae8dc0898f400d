"""An APIService for each group version this server itself serves: built-in ones by upstream's priorities, custom ones behind them.

They are marked as managed. What is done to a built-in one is undone: an APIService can never take a group of Kubernetes' own away. One
that a user has made for a group of custom resources is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from atoll.apiserver.machinery.discovery import CUSTOM_PRIORITY
from atoll.apiserver.machinery.kind import KindRegistry

GROUP = "apiregistration.k8s.io"
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
ON_START, ALWAYS = "onstart", "true"  # the label's values for built-in groups and for those of custom resources
CUSTOM_PRIORITIES = (CUSTOM_PRIORITY, 100)
GroupVersion = tuple[str, str]

_GROUP_PRIORITIES = {  # groupPriorityMinimum (kube-apiserver's default API service priorities)
    "": 18_000,
    "apps": 17_800,
    "events.k8s.io": 17_750,
    "authentication.k8s.io": 17_700,
    "authorization.k8s.io": 17_600,
    "autoscaling": 17_500,
    "batch": 17_400,
    "certificates.k8s.io": 17_300,
    "networking.k8s.io": 17_200,
    "policy": 17_100,
    "rbac.authorization.k8s.io": 17_000,
    "storage.k8s.io": 16_800,
    "apiextensions.k8s.io": 16_700,
    "admissionregistration.k8s.io": 16_700,
    "scheduling.k8s.io": 16_600,
    "coordination.k8s.io": 16_500,
    "node.k8s.io": 16_300,
    "discovery.k8s.io": 16_200,
    "flowcontrol.apiserver.k8s.io": 16_100,
    "resource.k8s.io": 15_900,
}
_VERSION_PRIORITIES = {("", "v1"): 1, ("autoscaling", "v2"): 30, ("flowcontrol.apiserver.k8s.io", "v1"): 21}
_VERSION_PRIORITY = 15


def name_of(group: str, version: str) -> str:
    return f"{version}.{group}"


def wanted(registry: KindRegistry) -> Iterator[tuple[GroupVersion, dict[str, Any]]]:
    """The objects that are to be there. The aggregator's own group has none, as upstream."""
    for group, versions in registry.groups().items():
        if group == GROUP:
            continue
        for version, kinds in versions.items():
            builtin = any(kind.builtin for kind in kinds)
            yield (group, version), _object(group, version, builtin=builtin)


def _object(group: str, version: str, *, builtin: bool) -> dict[str, Any]:
    priorities = CUSTOM_PRIORITIES
    if builtin:
        priorities = _GROUP_PRIORITIES.get(group, CUSTOM_PRIORITIES[0]), _VERSION_PRIORITIES.get((group, version), _VERSION_PRIORITY)
    return {
        "kind": "APIService",
        "apiVersion": f"{GROUP}/v1",
        "metadata": {"name": name_of(group, version), "labels": {MANAGED: ON_START if builtin else ALWAYS}},
        "spec": {
            **({"group": group} if group else {}),
            "version": version,
            "groupPriorityMinimum": priorities[0],
            "versionPriority": priorities[1],
        },
    }


def is_managed(obj: Mapping[str, Any]) -> bool:
    return (obj["metadata"].get("labels") or {}).get(MANAGED) in (ON_START, ALWAYS)
