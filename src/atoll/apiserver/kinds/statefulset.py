"""Stateful sets: ordered pods, each with claims made from templates."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.persistentvolumeclaim import default_claim_spec, validate_claim_spec
from atoll.apiserver.kinds.rules import Object, ReadOnly
from atoll.apiserver.kinds.workloads import WorkloadRules, validate_amount

_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_UPDATE_FORBIDDEN = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


class StatefulSetRules(WorkloadRules):
    kind_word = "StatefulSet"
    selector_is_immutable = False  # as part of the wider rule below

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("podManagementPolicy", "OrderedReady")
        strategy = spec.setdefault("updateStrategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        retention.setdefault("whenDeleted", "Retain")
        retention.setdefault("whenScaled", "Retain")
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        for template in spec.get("volumeClaimTemplates") or ():
            template.setdefault("apiVersion", "v1")
            template.setdefault("kind", "PersistentVolumeClaim")
            default_claim_spec(template.setdefault("spec", {}))
            template.setdefault("status", {}).setdefault("phase", "Pending")

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"replicas": 0, "availableReplicas": 0}

    def check_spec(self, spec: ReadOnly, causes: Causes) -> None:
        causes.one_of("spec.podManagementPolicy", spec.get("podManagementPolicy"), ("OrderedReady", "Parallel"))
        strategy = spec.get("updateStrategy") or {}
        rolling = strategy.get("rollingUpdate")
        if strategy.get("type") == "OnDelete" and rolling is not None:
            causes.invalid("spec.updateStrategy.rollingUpdate", rolling, "only allowed for updateStrategy 'RollingUpdate'")
        elif strategy.get("type") not in ("RollingUpdate", "OnDelete"):
            causes.invalid("spec.updateStrategy", strategy, "must be 'RollingUpdate' or 'OnDelete'")
        elif rolling:
            causes.non_negative("spec.updateStrategy.rollingUpdate.partition", rolling.get("partition"))
            validate_amount(rolling.get("maxUnavailable"), "spec.updateStrategy.rollingUpdate.maxUnavailable", causes)
        for index, template in enumerate(spec.get("volumeClaimTemplates") or ()):
            validate_claim_spec(template.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec", causes)

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        fields = {*new["spec"], *old["spec"]} - set(_MUTABLE)
        if any(new["spec"].get(field) != old["spec"].get(field) for field in fields):
            causes.forbidden("spec", _UPDATE_FORBIDDEN)


RULES = StatefulSetRules()
