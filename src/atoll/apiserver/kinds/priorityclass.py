"""Priority classes: a number up to a billion; more, and names that begin with system-, are the system's own."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

USER_MAX = 1_000_000_000
_SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class PriorityClassRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
        obj.setdefault("value", 0)

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
        if name.startswith("system-"):
            if _SYSTEM.get(name) != value:
                causes.forbidden("metadata.name", "priority class names with 'system-' prefix are reserved for system use only")
        elif value > USER_MAX:
            causes.forbidden("value", f"maximum allowed value of a user defined priority is {USER_MAX}")
        causes.one_of("preemptionPolicy", obj.get("preemptionPolicy"), ("Never", "PreemptLowerPriority"))

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        if new.get("value", 0) != old.get("value", 0):
            causes.forbidden("value", "may not be changed in an update.")
        causes.immutable("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))


RULES = PriorityClassRules()
