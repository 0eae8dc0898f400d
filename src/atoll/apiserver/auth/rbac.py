"""Role-based access: does any rule bound to this user allow this?

The rules that apply to a user are gathered once from the stored roles and bindings and kept until one of those changes; so is each answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from atoll.apiserver.call import Call, User
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.cacher import Cacher

GROUP = "rbac.authorization.k8s.io"
ANSWERS_MAX = 20_000
_KINDS = ("roles", "rolebindings", "clusterroles", "clusterrolebindings")


class Attributes(NamedTuple):
    """What is to be done. Either a resource (`resource` may be "pods/log") or a `path` that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @classmethod
    def of(cls, call: Call, verb: str | None = None) -> Attributes:
        kind = call.face
        resource = f"{kind.plural}/{call.subresource}" if call.subresource else kind.plural
        namespace = call.namespace or ""
        name = call.name or ""
        if kind.plural == "namespaces" and not kind.group and name:
            namespace = name  # upstream: a namespace is inside itself, so that its admins may read it
        return cls(verb or call.verb, kind.group, resource, namespace, name)


@dataclass(frozen=True, slots=True)
class Rule:
    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()

    @classmethod
    def parse(cls, rule: Mapping[str, Any]) -> Rule:
        return cls(
            frozenset(rule.get("verbs") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("resources") or ()),
            frozenset(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )

    def allows(self, wanted: Attributes) -> bool:
        if wanted.verb not in self.verbs and "*" not in self.verbs:
            return False
        if wanted.path:
            return any(wanted.path == path or (path.endswith("*") and wanted.path.startswith(path[:-1])) for path in self.paths)
        if wanted.group not in self.groups and "*" not in self.groups:
            return False
        if wanted.resource not in self.resources and "*" not in self.resources:
            _, slash, subresource = wanted.resource.partition("/")
            if not slash or f"*/{subresource}" not in self.resources:
                return False
        return not self.names or wanted.name in self.names


class Authorizer:
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
        if user.is_master:
            return True
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


def refusal(user: User, wanted: Attributes) -> str:
    """Upstream's words for what was not allowed."""
    if wanted.path:
        return f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    return f'User "{user.name}" cannot {wanted.verb} resource "{wanted.resource}" in API group "{wanted.group}" {where}'
