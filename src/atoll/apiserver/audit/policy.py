"""The audit policy: the first rule that matches a request says at which level it is told of, and at which stages it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.apiserver.call import User
from atoll.errors import InvalidInput

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
RECEIVED, STARTED, COMPLETE, PANIC = STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_VERSION = "audit.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is, to the rules. Either a resource or a `path`."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    level: str
    omitted: frozenset[str] = frozenset()
    without_managed_fields: bool = False

    def at_least(self, level: str) -> bool:
        return LEVELS.index(self.level) >= LEVELS.index(level)


NOTHING = Decision("None")


class Policy:
    def __init__(self, content: Mapping[str, Any]) -> None:
        """Raises InvalidInput for a rule that says nothing usable."""
        self._omitted = _stages(content.get("omitStages"), "omitStages")
        self._without_managed_fields = bool(content.get("omitManagedFields"))
        self._rules: list[Mapping[str, Any]] = list(content.get("rules") or ())
        if not self._rules:
            raise InvalidInput("an audit policy needs rules")
        for index, rule in enumerate(self._rules):
            if rule.get("level") not in LEVELS:
                raise InvalidInput(f"rules[{index}].level: {rule.get('level')!r} is none of {', '.join(LEVELS)}")
            _stages(rule.get("omitStages"), f"rules[{index}].omitStages")
            if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
                raise InvalidInput(f"rules[{index}]: rules cannot apply to both regular resources and non-resource URLs")

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Raises InvalidInput naming the file."""
        import yaml

        try:
            content: Any = yaml.safe_load(path.read_text())
            if not isinstance(content, dict) or (content.get("kind"), content.get("apiVersion")) != ("Policy", _VERSION):
                raise InvalidInput(f"expected a Policy of {_VERSION}")
            return cls(content)
        except (OSError, yaml.YAMLError, InvalidInput, AttributeError, TypeError) as error:
            raise InvalidInput(f"audit policy {path}: {error}") from None

    def decide(self, subject: Subject) -> Decision:
        for rule in self._rules:
            if _matches(rule, subject):
                own = rule.get("omitManagedFields")
                without = self._without_managed_fields if own is None else bool(own)
                return Decision(rule["level"], self._omitted | _stages(rule.get("omitStages"), ""), without)
        return NOTHING


def _stages(given: Any, where: str) -> frozenset[str]:
    stages = frozenset(given or ())
    if stages - set(STAGES):
        raise InvalidInput(f"{where}: {', '.join(sorted(stages - set(STAGES)))} is none of {', '.join(STAGES)}")
    return stages


def _matches(rule: Mapping[str, Any], subject: Subject) -> bool:
    users, groups = rule.get("users"), rule.get("userGroups")
    if users and subject.user.name not in users:
        return False
    if groups and not set(groups) & set(subject.user.groups):
        return False
    if rule.get("verbs") and subject.verb not in rule["verbs"]:
        return False
    if rule.get("namespaces") or rule.get("resources"):
        return not subject.path and _matches_resource(rule, subject)
    if rule.get("nonResourceURLs"):
        return bool(subject.path) and any(_is_path(subject.path, pattern) for pattern in rule["nonResourceURLs"])
    return True


def _matches_resource(rule: Mapping[str, Any], subject: Subject) -> bool:
    if rule.get("namespaces") and subject.namespace not in rule["namespaces"]:
        return False
    listed = rule.get("resources")
    return not listed or any(_is_resource(each, subject) for each in listed)


def _is_resource(wanted: Mapping[str, Any], subject: Subject) -> bool:
    if (wanted.get("group") or "") != subject.group:
        return False
    names, resources = wanted.get("resourceNames"), wanted.get("resources")
    if names and subject.name not in names:
        return False
    if not resources:
        return True
    whole = f"{subject.resource}/{subject.subresource}" if subject.subresource else subject.resource
    if subject.subresource:
        return bool({"*", whole, f"{subject.resource}/*", f"*/{subject.subresource}"} & set(resources))
    return bool({"*", whole} & set(resources))


def _is_path(path: str, pattern: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
