"""Replica sets, and the replication controllers they came from."""

from __future__ import annotations

from atoll.apiserver.kinds.rules import Object, ReadOnly
from atoll.apiserver.kinds.workloads import WorkloadRules


class ReplicaSetRules(WorkloadRules):
    kind_word = "ReplicaSet"

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("replicas", 1)

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"replicas": 0}

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"status.replicas": str((obj.get("status") or {}).get("replicas") or 0)}


RULES = ReplicaSetRules()
