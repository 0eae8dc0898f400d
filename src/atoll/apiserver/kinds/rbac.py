"""Roles and bindings. Their names have only to fit in a URL: system:node is one."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.label_selectors import validate_selector
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

GROUP = "rbac.authorization.k8s.io"


class RoleRules(Rules):
    namespaced = True

    def name_problems(self, name: str) -> list[str]:
        return names.path_segment(name)

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        for index, rule in enumerate(obj.get("rules") or ()):
            path = f"rules[{index}]"
            if not rule.get("verbs"):
                causes.required(f"{path}.verbs", "verbs must contain at least one value")
            urls = rule.get("nonResourceURLs")
            if urls:
                if self.namespaced:
                    causes.invalid(f"{path}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
                if any(rule.get(field) for field in ("apiGroups", "resources", "resourceNames")):
                    causes.invalid(f"{path}.nonResourceURLs", urls, "rules cannot apply to both regular resources and non-resource URLs")
                continue
            if not rule.get("apiGroups"):
                causes.required(f"{path}.apiGroups", "resource rules must supply at least one api group")
            if not rule.get("resources"):
                causes.required(f"{path}.resources", "resource rules must supply at least one resource")


class ClusterRoleRules(RoleRules):
    namespaced = False

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        super().check(obj, causes)
        aggregation = obj.get("aggregationRule")
        if aggregation is None:
            return
        path = "aggregationRule.clusterRoleSelectors"
        if not aggregation.get("clusterRoleSelectors"):
            causes.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
        for index, selector in enumerate(aggregation.get("clusterRoleSelectors") or ()):
            validate_selector(selector, f"{path}[{index}]", causes)


class RoleBindingRules(Rules):
    role_kinds: tuple[str, ...] = ("Role", "ClusterRole")
    namespaced = True

    def name_problems(self, name: str) -> list[str]:
        return names.path_segment(name)

    def default(self, obj: Object) -> None:
        reference = obj.setdefault("roleRef", {})
        reference["apiGroup"] = reference.get("apiGroup") or GROUP
        for subject in obj.get("subjects") or ():
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        reference = obj.get("roleRef") or {}
        if reference.get("apiGroup") != GROUP:
            causes.unsupported("roleRef.apiGroup", reference.get("apiGroup") or "", (GROUP,))
        if reference.get("kind") not in self.role_kinds:
            causes.unsupported("roleRef.kind", reference.get("kind") or "", self.role_kinds)
        if not reference.get("name"):
            causes.required("roleRef.name")
        else:
            causes.each("roleRef.name", reference["name"], names.path_segment(reference["name"]))
        for index, subject in enumerate(obj.get("subjects") or ()):
            self._check_subject(subject, f"subjects[{index}]", causes)

    def _check_subject(self, subject: ReadOnly, path: str, causes: Causes) -> None:
        kind, group = subject.get("kind") or "", subject.get("apiGroup") or ""
        if not subject.get("name"):
            causes.required(f"{path}.name")
        if kind == "ServiceAccount":
            if group:
                causes.unsupported(f"{path}.apiGroup", group, ("",))
            if not self.namespaced and not subject.get("namespace"):
                causes.required(f"{path}.namespace")
        elif kind in ("User", "Group"):
            if group != GROUP:
                causes.unsupported(f"{path}.apiGroup", group, (GROUP,))
        else:
            causes.unsupported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group"))

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        if new.get("roleRef") != old.get("roleRef"):
            causes.invalid("roleRef", new.get("roleRef"), "cannot change roleRef")


class ClusterRoleBindingRules(RoleBindingRules):
    role_kinds = ("ClusterRole",)
    namespaced = False


ROLE, CLUSTER_ROLE = RoleRules(), ClusterRoleRules()
ROLE_BINDING, CLUSTER_ROLE_BINDING = RoleBindingRules(), ClusterRoleBindingRules()
