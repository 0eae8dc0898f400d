"""What is asked of an authoriser, and the rules it is held against: values, without any store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from atoll.apiserver.call import Call, User
from atoll.apiserver.machinery.selectors import parse_fields

NODE_FIELDS = ("spec.nodeName", "nodeName")


class Attributes(NamedTuple):
    """What is to be done. Either a resource (`resource` may be "pods/log") or a `path` that is none.

    `node` is the node to which a list of pods or resource slices is held by its field selector.
    """

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    node: str = ""

    @classmethod
    def of(cls, call: Call, fields: str | None = None) -> Attributes:
        """`fields` is the field selector of a list or watch: one that names a single object asks for that object alone."""
        kind = call.face
        resource = f"{kind.plural}/{call.subresource}" if call.subresource else kind.plural
        namespace = call.namespace or ""
        name, node = call.name or "", ""
        for term in parse_fields(fields) if fields else ():
            if term.equal and term.field == "metadata.name":
                name = name or term.value
            elif term.equal and term.field in NODE_FIELDS:
                node = term.value
        if kind.plural == "namespaces" and not kind.group and name:
            namespace = name  # upstream: a namespace is inside itself, so that its admins may read it
        return cls(call.verb, kind.group, resource, namespace, name, node=node)


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


def refusal(user: User, wanted: Attributes) -> str:
    """Upstream's words for what was not allowed."""
    if wanted.path:
        return f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    return f'User "{user.name}" cannot {wanted.verb} resource "{wanted.resource}" in API group "{wanted.group}" {where}'
