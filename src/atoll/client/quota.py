"""What an object counts for in a ResourceQuota, and which quotas it counts in.

The API server charges by it when an object comes, the quota controller reckons by it what is in use; both must come to the same. Amounts
are exact decimals; names are those of `spec.hard`: requests.cpu, limits.memory, services.nodeports, count/deployments.apps.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from atoll.client.objects import Object, is_deleting
from atoll.units import parse_quantity

Usage = dict[str, Decimal]
ReadOnly = Mapping[str, Any]

ONE = Decimal(1)
MUST_BE_SAID = (
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
)  # by each container, once a quota names it
_NAMED = {"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"}
_PLAIN = {"cpu", "memory", "ephemeral-storage"}  # short for requests.<name>
_CLASS = ".storageclass.storage.k8s.io/"
_LEGACY_CLASS = "volume.beta.kubernetes.io/storage-class"
_MEBI, _KIBI = 1 << 20, 1 << 10


def usage_of(group: str, plural: str, obj: ReadOnly, now: float) -> Usage:
    """All the object counts for, by every name a quota may use. `now` is the wall clock in seconds."""
    usage: Usage = {f"count/{plural}.{group}" if group else f"count/{plural}": ONE}
    if group or plural not in _NAMED:
        return usage
    if plural != "pods":
        usage[plural] = ONE
    if plural == "pods" and not is_over(obj, now):
        usage |= _pod(obj)
    elif plural == "services":
        usage |= _service(obj.get("spec") or {})
    elif plural == "persistentvolumeclaims":
        usage |= _claim(obj)
    return usage


def resources_counted(hard: Iterable[str]) -> set[tuple[str, str]]:
    """(group, plural) of all whose objects a quota with these names has to look at."""
    found = set()
    for name in hard:
        if name.startswith("count/"):
            plural, _, group = name.removeprefix("count/").partition(".")
            found.add((group, plural))
        elif name.startswith("services"):
            found.add(("", "services"))
        elif name in ("requests.storage", "persistentvolumeclaims") or _CLASS in name:
            found.add(("", "persistentvolumeclaims"))
        else:
            found.add(("", name if name in _NAMED else "pods"))
    return found


def total(usages: Iterable[Usage]) -> Usage:
    summed: Usage = {}
    for usage in usages:
        for name, amount in usage.items():
            summed[name] = summed.get(name, Decimal()) + amount
    return summed


def parse(amounts: Mapping[str, str] | None) -> Usage:
    """Raises InvalidInput."""
    return {name: parse_quantity(text) for name, text in (amounts or {}).items()}


def written(name: str, amount: Decimal) -> str:
    """An amount as text: sizes in powers of 1024 where they are even in them."""
    if amount == amount.to_integral_value():
        whole = int(amount)
        if name.endswith(("memory", "storage")) or "hugepages-" in name:
            for unit, suffix in ((1 << 30, "Gi"), (_MEBI, "Mi"), (_KIBI, "Ki")):
                if whole and whole % unit == 0 and (unit > _KIBI or whole % 1000):
                    return f"{whole // unit}{suffix}"
        return str(whole)
    return f"{int((amount * 1000).to_integral_value(rounding='ROUND_UP'))}m"


def is_over(pod: ReadOnly, now: float) -> bool:
    """A pod that has ended, or should have by its grace, holds nothing any more."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    metadata = pod["metadata"]
    if not is_deleting(dict(pod)) or metadata.get("deletionGracePeriodSeconds") is None:
        return False
    return calendar.timegm(time.strptime(metadata["deletionTimestamp"], "%Y-%m-%dT%H:%M:%SZ")) < now


def in_scopes(quota: ReadOnly, group: str, plural: str, obj: ReadOnly) -> bool:
    """Whether the quota counts the object at all: a quota with scopes counts pods only."""
    spec = quota.get("spec") or {}
    scopes = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    scopes += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if not scopes:
        return True
    return not group and plural == "pods" and all(_in_scope(scope, obj) for scope in scopes)


def unsaid(pod: ReadOnly, names: Iterable[str]) -> dict[str, list[str]]:
    """Of the names that each container has to say: which do not, and the containers that leave them out."""
    spec = pod.get("spec") or {}
    missing: dict[str, list[str]] = {}
    for name in sorted(set(names) & set(MUST_BE_SAID)):
        which, _, resource = name.rpartition(".")
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            if resource not in ((container.get("resources") or {}).get(which or "requests") or {}):
                missing.setdefault(name, []).append(container["name"])
    return missing


def _pod(pod: ReadOnly) -> Usage:
    usage: Usage = {"pods": ONE}
    for name, amount in pod_amounts(pod, "requests").items():
        usage[f"requests.{name}"] = amount
        if name in _PLAIN or name.startswith("hugepages-"):
            usage[name] = amount
    for name, amount in pod_amounts(pod, "limits").items():
        usage[f"limits.{name}"] = amount
    return usage


def pod_amounts(pod: ReadOnly, which: str) -> Usage:
    """The pod's `requests` or `limits`: the sum of its containers, or the largest moment of its start when that is more."""
    spec = pod.get("spec") or {}

    def of(holder: ReadOnly) -> Usage:
        return parse((holder.get("resources") or {}).get(which))

    running = total(of(container) for container in spec.get("containers") or ())
    peak: Usage = {}
    sidecars: Usage = {}
    for container in spec.get("initContainers") or ():
        asked = total((sidecars, of(container)))
        peak = {name: max(peak.get(name, Decimal()), asked.get(name, Decimal())) for name in {*peak, *asked}}
        if container.get("restartPolicy") == "Always":
            sidecars = asked
    running = total((running, sidecars))
    amounts = {name: max(running.get(name, Decimal()), peak.get(name, Decimal())) for name in {*running, *peak}}
    amounts.update(of(spec))  # what is said for the pod as a whole overrules the sum
    overhead = parse(spec.get("overhead"))
    return total((amounts, {name: amount for name, amount in overhead.items() if which == "requests" or name in amounts}))


def _service(spec: ReadOnly) -> Usage:
    kind, ports = spec.get("type"), Decimal(len(spec.get("ports") or ()))
    if kind == "NodePort":
        return {"services.nodeports": ports}
    if kind == "LoadBalancer":
        return {"services.loadbalancers": ONE} | ({"services.nodeports": ports} if spec.get("allocateLoadBalancerNodePorts", True) else {})
    return {}


def _claim(claim: ReadOnly) -> Usage:
    spec = claim.get("spec") or {}
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    usage: Usage = {"requests.storage": parse_quantity(storage)} if storage else {}
    name = spec.get("storageClassName") or (claim["metadata"].get("annotations") or {}).get(_LEGACY_CLASS)
    if name:
        usage |= {f"{name}{_CLASS}{what}": amount for what, amount in {**usage, "persistentvolumeclaims": ONE}.items()}
    return usage


def _in_scope(scope: ReadOnly, pod: ReadOnly) -> bool:
    spec = pod.get("spec") or {}
    match scope["scopeName"]:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return _is_best_effort(spec)
        case "NotBestEffort":
            return not _is_best_effort(spec)
        case "CrossNamespacePodAffinity":
            return _is_cross_namespace(spec.get("affinity") or {})
        case "PriorityClass":
            return _selects(scope, str(spec.get("priorityClassName") or ""))
    return False


def _is_best_effort(spec: ReadOnly) -> bool:
    holders = (spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    said = [(holder.get("resources") or {}).get(which) or {} for holder in holders for which in ("requests", "limits")]
    return not any(amounts.get(name) for amounts in said for name in ("cpu", "memory"))


def _is_cross_namespace(affinity: Object) -> bool:
    for side in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(side) or {}
        required = list(terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = [each["podAffinityTerm"] for each in terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in (*required, *preferred)):
            return True
    return False


def _selects(scope: ReadOnly, value: str) -> bool:
    match scope.get("operator"):
        case "In":
            return value in (scope.get("values") or ())
        case "NotIn":
            return value not in (scope.get("values") or ())
        case "DoesNotExist":
            return not value
    return bool(value)
