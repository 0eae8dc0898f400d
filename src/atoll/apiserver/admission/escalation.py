"""Nobody grants what they do not hold: a role's rules, and the rules a binding leads to, must be covered by the grantor's own.

Those who may `escalate` roles, or `bind` a certain role, are let through, as upstream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.rbac import GROUP
from atoll.apiserver.auth.rules import Attributes, Rule
from atoll.apiserver.call import Call
from atoll.apiserver.machinery import statuses


def refuse_escalation(authorizer: Authorizer, call: Call, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Raises StatusError 403 with the rules that are not held."""
    if call.user.is_master:
        return
    namespace = call.namespace or ""
    if call.kind.plural in ("roles", "clusterroles"):
        if old is not None and old.get("rules") == new.get("rules"):
            return
        wanted = [Rule.parse(rule) for rule in new.get("rules") or ()]
        waived = Attributes("escalate", GROUP, call.kind.plural, namespace, call.name or "")
    else:
        if old is not None and old.get("subjects") == new.get("subjects"):
            return
        reference = new.get("roleRef") or {}
        wanted = authorizer.rules_in_role(reference, namespace)
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        waived = Attributes("bind", GROUP, plural, namespace, str(reference.get("name")))
    if authorizer.allows(call.user, waived):
        return
    held = [rule for where, rule in authorizer.rules_of(call.user) if where in ("", namespace)]
    missing = [rule for rule in wanted if not all(any(covers(own, part) for own in held) for part in _parts(rule))]
    if missing:
        groups = " ".join(f'"{group}"' for group in call.user.groups)
        why = f'user "{call.user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
        raise statuses.forbidden(call.kind, call.name, why + "\n".join(_shown(rule) for rule in missing))


def _parts(rule: Rule) -> Iterator[Rule]:
    """The rule as single permissions."""
    for verb, path in product(rule.verbs, rule.paths):
        yield Rule(frozenset({verb}), paths=(path,))
    for verb, group, resource, name in product(rule.verbs, rule.groups, rule.resources, rule.names or ("",)):
        names = frozenset({name}) if name else frozenset()
        yield Rule(frozenset({verb}), frozenset({group}), frozenset({resource}), names)


def covers(own: Rule, part: Rule) -> bool:
    """Whether a rule holds all of a single permission; what is asked for with "*" is only held with "*"."""
    if part.paths:
        return _has(own.verbs, part.verbs) and any(
            part.paths[0] == path or (path.endswith("*") and part.paths[0].startswith(path[:-1])) for path in own.paths
        )
    if not (_has(own.verbs, part.verbs) and _has(own.groups, part.groups)):
        return False
    if not _has(own.resources, part.resources):
        _, slash, subresource = next(iter(part.resources)).partition("/")
        if not slash or f"*/{subresource}" not in own.resources:
            return False
    return not own.names or (bool(part.names) and part.names <= own.names)


def _has(own: frozenset[str], wanted: frozenset[str]) -> bool:
    return "*" in own or wanted <= own


def _shown(rule: Rule) -> str:
    parts = [("APIGroups", rule.groups), ("Resources", rule.resources), ("ResourceNames", rule.names), ("NonResourceURLs", rule.paths)]
    shown = [(name, values) for name, values in [*parts, ("Verbs", rule.verbs)] if values]
    return "{" + ", ".join(f"{name}:[{' '.join(_quoted(value) for value in sorted(values))}]" for name, values in shown) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
