"""How nodes are chosen: node selector terms, taints and tolerations. Pure; the scheduler, the volume binder and the daemon set
controller agree through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from atoll.client.objects import Object, labels_of, name_of

HOSTNAME_LABEL = "kubernetes.io/hostname"
TAINT_NOT_READY = "node.kubernetes.io/not-ready"
TAINT_UNREACHABLE = "node.kubernetes.io/unreachable"
TAINT_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
TAINT_MEMORY_PRESSURE = "node.kubernetes.io/memory-pressure"
TAINT_DISK_PRESSURE = "node.kubernetes.io/disk-pressure"
TAINT_PID_PRESSURE = "node.kubernetes.io/pid-pressure"
TAINT_NETWORK_UNAVAILABLE = "node.kubernetes.io/network-unavailable"


def matches_node_selector(selector: Object, node: Object) -> bool:
    """A core/v1 NodeSelector: one term must hold. An empty term holds nowhere."""
    return any(matches_term(term, node) for term in selector.get("nodeSelectorTerms") or ())


def matches_term(term: Object, node: Object) -> bool:
    """All expressions over labels and all over fields (of which only metadata.name exists)."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": name_of(node)}
    return all(_holds(each, labels_of(node)) for each in expressions) and all(_holds(each, names) for each in fields)


def _holds(requirement: Object, values: Mapping[str, str]) -> bool:
    key, operator = requirement["key"], requirement["operator"]
    wanted: list[str] = requirement.get("values") or []
    value = values.get(key)
    match operator:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                have, bound = int(value or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return have > bound if operator == "Gt" else have < bound
    return False


def tolerates(toleration: Object, taint: Object) -> bool:
    """One toleration against one taint (core/v1 Toleration.ToleratesTaint). An empty key with Exists tolerates everything."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def untolerated(taints: Iterable[Object], tolerations: Iterable[Object], effects: Iterable[str]) -> Object | None:
    """The first taint with one of the effects that no toleration covers."""
    tolerations, effects = list(tolerations), frozenset(effects)
    for taint in taints:
        if taint["effect"] in effects and not any(tolerates(each, taint) for each in tolerations):
            return taint
    return None


def taints_of(node: Object) -> list[Object]:
    return (node.get("spec") or {}).get("taints") or []
