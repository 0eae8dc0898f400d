"""Daemon sets: one pod a node, replaced one node at a time."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly
from atoll.apiserver.kinds.workloads import WorkloadRules, is_zero, validate_amount


class DaemonSetRules(WorkloadRules):
    kind_word = "DaemonSet"

    def default_spec(self, spec: Object) -> None:
        strategy = spec.setdefault("updateStrategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}

    def check_spec(self, spec: ReadOnly, causes: Causes) -> None:
        strategy = spec.get("updateStrategy") or {}
        causes.one_of("spec.updateStrategy.type", strategy.get("type"), ("RollingUpdate", "OnDelete"))
        rolling = strategy.get("rollingUpdate") or {}
        if strategy.get("type") == "RollingUpdate":
            path = "spec.updateStrategy.rollingUpdate"
            validate_amount(rolling.get("maxUnavailable"), f"{path}.maxUnavailable", causes)
            validate_amount(rolling.get("maxSurge"), f"{path}.maxSurge", causes)
            if is_zero(rolling.get("maxUnavailable")) and is_zero(rolling.get("maxSurge")):
                causes.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), "cannot be 0 when maxSurge is 0")
            elif not is_zero(rolling.get("maxUnavailable")) and not is_zero(rolling.get("maxSurge")):
                causes.invalid(f"{path}.maxSurge", rolling.get("maxSurge"), "may not be set when maxUnavailable is non-zero")


RULES = DaemonSetRules()
