"""Events, in the form of core/v1, which is how they are stored."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_OBJECT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


class EventRules(Rules):
    def default(self, obj: Object) -> None:
        obj.setdefault("source", {})
        for field in ("reportingComponent", "reportingInstance"):
            obj.setdefault(field, "")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        involved, namespace = obj.get("involvedObject") or {}, (obj.get("metadata") or {}).get("namespace")
        if involved.get("namespace") and involved["namespace"] != namespace:
            causes.invalid("involvedObject.namespace", involved["namespace"], "does not match event.namespace")
        elif not involved.get("namespace") and namespace not in ("default", "kube-system"):
            causes.invalid("involvedObject.namespace", "", "does not match event.namespace")

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        involved = obj.get("involvedObject") or {}
        fields = {f"involvedObject.{name}": involved.get(name) or "" for name in _OBJECT_FIELDS}
        # events.k8s.io calls them otherwise
        fields |= {f"regarding.{name}": involved.get(name) or "" for name in _OBJECT_FIELDS}
        fields["reportingController"] = obj.get("reportingComponent") or ""
        return {
            **fields,
            "reason": obj.get("reason") or "",
            "reportingComponent": obj.get("reportingComponent") or "",
            "source": (obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "",
            "type": obj.get("type") or "",
        }


RULES = EventRules()
