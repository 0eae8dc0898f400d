"""Autoscalers (autoscaling/v2): 80 % of CPU when no metric is given; the usual speed of scaling where a direction is described."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_SOURCES = {"Resource": "resource", "Pods": "pods", "Object": "object", "External": "external", "ContainerResource": "containerResource"}
_UP = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max"}
_DOWN = {"selectPolicy": "Max"}
_UP_POLICIES = (("Pods", 4, 15), ("Percent", 100, 15))
_DOWN_POLICIES = (("Percent", 100, 15),)


class HorizontalPodAutoscalerRules(Rules):
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        if "behavior" in spec:
            for name, fields, policies in (("scaleUp", _UP, _UP_POLICIES), ("scaleDown", _DOWN, _DOWN_POLICIES)):
                rules = spec["behavior"].setdefault(name, {})
                for field, value in fields.items():
                    rules.setdefault(field, value)
                if not rules.get("policies"):
                    rules["policies"] = [{"type": kind, "value": value, "periodSeconds": period} for kind, value, period in policies]

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"desiredReplicas": 0}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        low, high = spec.get("minReplicas", 1), spec.get("maxReplicas") or 0
        if low < 1:
            causes.invalid("spec.minReplicas", low, "must be greater than or equal to 1")
        if high < 1:
            causes.invalid("spec.maxReplicas", high, "must be greater than 0")
        elif high < low:
            causes.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
        target = spec.get("scaleTargetRef") or {}
        for field in ("kind", "name"):
            if not target.get(field):
                causes.required(f"spec.scaleTargetRef.{field}")
        for index, metric in enumerate(spec.get("metrics") or ()):
            path = f"spec.metrics[{index}]"
            kind = metric.get("type") or ""
            if kind not in _SOURCES:
                causes.unsupported(f"{path}.type", kind, sorted(_SOURCES))
            elif _SOURCES[kind] not in metric:
                causes.required(f"{path}.{_SOURCES[kind]}", "must populate information for the given metric source")


RULES = HorizontalPodAutoscalerRules()
