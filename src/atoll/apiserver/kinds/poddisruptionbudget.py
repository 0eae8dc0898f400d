"""Disruption budgets: so many must stay, or so many may go, not both."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.label_selectors import validate_selector
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.kinds.workloads import validate_amount


class PodDisruptionBudgetRules(Rules):
    counts_generations = True

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        if "minAvailable" in spec and "maxUnavailable" in spec:
            causes.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
        for field in ("minAvailable", "maxUnavailable"):
            validate_amount(spec.get(field), f"spec.{field}", causes)
        validate_selector(spec.get("selector"), "spec.selector", causes)
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in ("AlwaysAllow", "IfHealthyBudget"):
            causes.unsupported("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


RULES = PodDisruptionBudgetRules()
