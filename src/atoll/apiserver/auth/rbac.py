"""Role-based access: does any rule bound to this user allow this?

The rules that apply to a user are gathered once from the stored roles and bindings and kept until one of those changes; so is each answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.apiserver.auth.rules import Attributes, Rule
from atoll.apiserver.call import User
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.cacher import Cacher

GROUP = "rbac.authorization.k8s.io"
ANSWERS_MAX = 20_000
_KINDS = ("roles", "rolebindings", "clusterroles", "clusterrolebindings")


class RoleBased:
    def __init__(self, core: Core) -> None:
        self._cachers: dict[str, Cacher] = {}
        for plural in _KINDS:
            kind = core.registry.get(GROUP, "v1", plural)
            if kind is not None:
                self._cachers[plural] = core.cacher(kind)
        self._stamp: tuple[int, ...] = ()
        self._rules: dict[tuple[str, tuple[str, ...]], list[tuple[str, Rule]]] = {}
        self._answers: dict[tuple[str, tuple[str, ...], Attributes], bool] = {}

    def allows(self, user: User, wanted: Attributes) -> bool:
        self._refresh()
        key = (user.name, user.groups, wanted)
        answer = self._answers.get(key)
        if answer is None:
            answer = any(rule.allows(wanted) for where, rule in self.rules_of(user) if not where or where == wanted.namespace)
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            self._answers[key] = answer
        return answer

    def rules_of(self, user: User) -> list[tuple[str, Rule]]:
        """Each rule bound to the user with the namespace it holds in; "" is everywhere."""
        self._refresh()
        key = (user.name, user.groups)
        if key not in self._rules:
            self._rules[key] = list(self._gather(user))
        return self._rules[key]

    def rules_in_role(self, reference: Mapping[str, Any], namespace: str) -> list[Rule]:
        """The rules a roleRef leads to; none when there is no such role."""
        cluster_wide = reference.get("kind") == "ClusterRole"
        cacher = self._cachers.get("clusterroles" if cluster_wide else "roles")
        name = str(reference.get("name"))
        item = cacher.get(name if cluster_wide else f"{namespace}/{name}") if cacher else None
        return [Rule.parse(rule) for rule in (item.obj.get("rules") or ())] if item else []

    def _gather(self, user: User) -> Iterable[tuple[str, Rule]]:
        for plural in ("clusterrolebindings", "rolebindings"):
            if plural not in self._cachers:
                continue
            for item in self._cachers[plural].items():
                namespace = item.obj["metadata"].get("namespace", "")
                if any(_is_subject(subject, user, namespace) for subject in item.obj.get("subjects") or ()):
                    for rule in self.rules_in_role(item.obj.get("roleRef") or {}, namespace):
                        yield namespace, rule

    def reason(self, user: User, wanted: Attributes) -> str:
        """By which binding the user may, in upstream's words; "" where none lets it."""
        for plural in ("clusterrolebindings", "rolebindings"):
            for item in self._cachers[plural].in_order() if plural in self._cachers else ():
                namespace = item.obj["metadata"].get("namespace", "")
                if namespace != wanted.namespace and plural == "rolebindings":
                    continue
                subject = next((each for each in item.obj.get("subjects") or () if _is_subject(each, user, namespace)), None)
                reference = item.obj.get("roleRef") or {}
                if subject is not None and any(rule.allows(wanted) for rule in self.rules_in_role(reference, namespace)):
                    return f"RBAC: allowed by {_described(item.obj, reference, subject, namespace)}"
        return ""

    def _refresh(self) -> None:
        stamp = tuple(cacher.last_change for cacher in self._cachers.values())
        if stamp != self._stamp:
            self._stamp = stamp
            self._rules.clear()
            self._answers.clear()


def _is_subject(subject: Mapping[str, Any], user: User, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(name == user.name)
    if kind == "Group":
        return name in user.groups
    return kind == "ServiceAccount" and user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"


def _described(binding: Mapping[str, Any], reference: Mapping[str, Any], subject: Mapping[str, Any], namespace: str) -> str:
    name, who = binding["metadata"]["name"], subject.get("name", "")
    if namespace:
        name = f"{name}/{namespace}"
    if subject.get("kind") == "ServiceAccount":
        who = f"{who}/{subject.get('namespace') or namespace}"
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    return f'{kind} "{name}" of {reference.get("kind")} "{reference.get("name")}" to {subject.get("kind")} "{who}"'
