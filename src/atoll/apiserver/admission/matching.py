"""Which requests a webhook or policy concerns: its rules (operations, groups, versions, resources, scope) and its two selectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.selectors import label_selector_of

MaybeObject = Mapping[str, Any] | None
Match = Mapping[str, Any]
CONNECTIONS = ("attach", "exec", "portforward", "proxy")  # subresources that carry streams


def operation_of(call: Call, new: MaybeObject, old: MaybeObject) -> str:
    """As rules name it."""
    if call.subresource in CONNECTIONS:
        return "CONNECT"
    return "DELETE" if new is None else "UPDATE" if old is not None else "CREATE"


def is_named(rules: Iterable[Match] | None, call: Call, operation: str, *, match_policy: str = "Equivalent") -> bool:
    """Whether any of the rules names the request; `Exact` looks at the version it came in alone, `Equivalent` at the stored one too."""
    kinds = (call.face,) if match_policy == "Exact" or call.face is call.kind else (call.face, call.kind)
    return any(_names(rule, call, operation, kinds) for rule in rules or ())


def _names(rule: Match, call: Call, operation: str, kinds: tuple[Kind, ...]) -> bool:
    operations = rule.get("operations") or ()
    if operation not in operations and "*" not in operations:
        return False
    names = rule.get("resourceNames") or ()
    if names and call.name not in names:
        return False
    scope = rule.get("scope") or "*"
    if scope != "*" and (scope == "Namespaced") is not call.kind.namespaced:
        return False
    return any(_names_kind(rule, kind, call.subresource) for kind in kinds)


def _names_kind(rule: Match, kind: Kind, subresource: str) -> bool:
    if not {kind.group, "*"} & set(rule.get("apiGroups") or ()) or not {kind.version, "*"} & set(rule.get("apiVersions") or ()):
        return False
    whole = {kind.plural, "*", "*/*"}
    part = {f"{kind.plural}/{subresource}", f"{kind.plural}/*", f"*/{subresource}", "*/*"}
    return bool((part if subresource else whole) & set(rule.get("resources") or ()))


def is_selected(core: Core, match: Match, call: Call, new: MaybeObject, old: MaybeObject) -> bool:
    """By labels of the object, old or new, and of its namespace."""
    by_object = label_selector_of(match.get("objectSelector") or {})
    if by_object:
        told = [(obj.get("metadata") or {}).get("labels") or {} for obj in (new, old) if obj is not None]
        if not any(all(requirement.matches(labels) for requirement in by_object) for labels in told):
            return False
    by_namespace = label_selector_of(match.get("namespaceSelector") or {})
    if not by_namespace:
        return True
    namespace = namespace_object(core, call, new, old)
    if namespace is None:
        return True
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    return all(requirement.matches(labels) for requirement in by_namespace)


def namespace_object(core: Core, call: Call, new: MaybeObject, old: MaybeObject) -> MaybeObject:
    """The namespace of the request, itself where it is one; None for cluster-scoped kinds."""
    if call.kind.plural == "namespaces" and not call.kind.group:
        return new if new is not None else old
    if not call.namespace:
        return None
    item = core.find("", "v1", "namespaces", call.namespace)
    return item.obj if item else {"metadata": {"name": call.namespace}}


def is_constrained(core: Core, match: Match | None, call: Call, new: MaybeObject, old: MaybeObject) -> bool:
    """Whether a policy's matchConstraints, or a binding's matchResources, let the request in; without rules all are named."""
    if match is None:
        return True
    operation, policy = operation_of(call, new, old), match.get("matchPolicy") or "Equivalent"
    if is_named(match.get("excludeResourceRules"), call, operation, match_policy=policy):
        return False
    rules = match.get("resourceRules")
    if rules and not is_named(rules, call, operation, match_policy=policy):
        return False
    return is_selected(core, match, call, new, old)
