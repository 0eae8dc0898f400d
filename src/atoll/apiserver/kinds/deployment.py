"""Deployments: rolling updates by 25 %, ten old revisions, ten minutes to make progress."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly
from atoll.apiserver.kinds.workloads import WorkloadRules, is_zero, validate_amount

_TYPES = ("Recreate", "RollingUpdate")


class DeploymentRules(WorkloadRules):
    kind_word = "deployment"

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("replicas", 1)
        strategy = spec.setdefault("strategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)

    def check_spec(self, spec: ReadOnly, causes: Causes) -> None:
        strategy = spec.get("strategy") or {}
        kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
        causes.one_of("spec.strategy.type", kind, _TYPES)
        if kind == "Recreate" and rolling is not None:
            causes.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        elif kind == "RollingUpdate" and rolling:
            path = "spec.strategy.rollingUpdate"
            validate_amount(rolling.get("maxUnavailable"), f"{path}.maxUnavailable", causes)
            validate_amount(rolling.get("maxSurge"), f"{path}.maxSurge", causes)
            if is_zero(rolling.get("maxUnavailable")) and is_zero(rolling.get("maxSurge")):
                causes.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), "may not be 0 when `maxSurge` is 0")
        deadline = spec.get("progressDeadlineSeconds")
        causes.non_negative("spec.progressDeadlineSeconds", deadline)
        if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
            causes.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


RULES = DeploymentRules()
