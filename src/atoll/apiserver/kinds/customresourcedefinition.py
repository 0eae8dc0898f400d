"""Definitions of custom resources: names that agree with each other, and exactly one version that is stored."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_SCOPES = ("Cluster", "Namespaced")


class CustomResourceDefinitionRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        told = spec.setdefault("names", {})
        kind = told.get("kind") or ""
        if kind:
            told.setdefault("singular", kind.lower())
            told.setdefault("listKind", f"{kind}List")
        spec.setdefault("conversion", {}).setdefault("strategy", "None")

    def initial_status(self, obj: ReadOnly) -> Object:
        stored = [
            version["name"] for version in (obj.get("spec") or {}).get("versions") or () if version.get("storage") and "name" in version
        ]
        return {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec, name = obj.get("spec") or {}, (obj.get("metadata") or {}).get("name") or ""
        told, group = spec.get("names") or {}, spec.get("group") or ""
        if name != f"{told.get('plural') or ''}.{group}":
            causes.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
        if not group:
            causes.required("spec.group")
        elif "." not in group:
            causes.invalid("spec.group", group, "should be a domain with at least one dot")
        causes.one_of("spec.scope", spec.get("scope"), _SCOPES)
        for field in ("plural", "singular"):
            if told.get(field):
                causes.each(f"spec.names.{field}", told[field], names.label_1035(told[field]))
        if told.get("kind") and told.get("kind") == told.get("listKind"):
            causes.invalid("spec.names.listKind", told["listKind"], "kind and listKind may not be the same")
        versions = spec.get("versions") or ()
        for index, version in enumerate(versions):
            if version.get("schema") is None:
                causes.required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
        if sum(bool(version.get("storage")) for version in versions) != 1:
            causes.invalid("spec.versions", versions, "must have exactly one version marked as storage version")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        for field in ("group", "scope"):
            causes.immutable(f"spec.{field}", new["spec"].get(field), old["spec"].get(field))
        for field in ("plural", "kind"):
            causes.immutable(f"spec.names.{field}", new["spec"]["names"].get(field), old["spec"]["names"].get(field))


RULES = CustomResourceDefinitionRules()
