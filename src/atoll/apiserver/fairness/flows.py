"""Flow schemas compiled: which of them a request belongs to, by who asks for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from atoll.apiserver.call import User


class Asked(NamedTuple):
    """A request as schemas see it; `path` where it is for no resource. `namespace` is "" at the cluster's scope."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class FlowSchema:
    name: str
    uid: str
    level: str
    precedence: int
    distinguisher: str
    rules: tuple[Mapping[str, Any], ...]

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> FlowSchema:
        spec = obj.get("spec") or {}
        return cls(
            obj["metadata"]["name"],
            obj["metadata"]["uid"],
            (spec.get("priorityLevelConfiguration") or {}).get("name") or "",
            int(spec.get("matchingPrecedence") or 1000),
            (spec.get("distinguisherMethod") or {}).get("type") or "",
            tuple(spec.get("rules") or ()),
        )

    def matches(self, user: User, asked: Asked) -> bool:
        return any(_is_subject(rule, user) and _is_asked(rule, asked) for rule in self.rules)

    def flow(self, user: User, asked: Asked) -> str:
        """What tells the flows of one schema apart."""
        return user.name if self.distinguisher == "ByUser" else asked.namespace if self.distinguisher == "ByNamespace" else ""


def _is_subject(rule: Mapping[str, Any], user: User) -> bool:
    for subject in rule.get("subjects") or ():
        match subject.get("kind"):
            case "User":
                if _is_one_of(user.name, [(subject.get("user") or {}).get("name")]):
                    return True
            case "Group":
                name = (subject.get("group") or {}).get("name")
                if name == "*" or name in user.groups:
                    return True
            case "ServiceAccount":
                account = subject.get("serviceAccount") or {}
                prefix = f"system:serviceaccount:{account.get('namespace')}:"
                if user.name.startswith(prefix) and _is_one_of(user.name.removeprefix(prefix), [account.get("name")]):
                    return True
    return False


def _is_asked(rule: Mapping[str, Any], asked: Asked) -> bool:
    if asked.path:
        return any(
            _is_one_of(asked.verb, each.get("verbs")) and any(_is_path(asked.path, url) for url in each.get("nonResourceURLs") or ())
            for each in rule.get("nonResourceRules") or ()
        )
    return any(_is_resource(each, asked) for each in rule.get("resourceRules") or ())


def _is_resource(rule: Mapping[str, Any], asked: Asked) -> bool:
    if not (_is_one_of(asked.verb, rule.get("verbs")) and _is_one_of(asked.group, rule.get("apiGroups"))):
        return False
    if not _is_one_of(asked.resource, rule.get("resources")):
        return False
    return _is_one_of(asked.namespace, rule.get("namespaces")) if asked.namespace else bool(rule.get("clusterScope"))


def _is_one_of(value: str, allowed: Iterable[Any] | None) -> bool:
    return any(each in ("*", value) for each in allowed or ())


def _is_path(path: str, pattern: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("/*") and path.startswith(pattern[:-1]))
