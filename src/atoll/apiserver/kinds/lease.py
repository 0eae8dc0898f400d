"""Leases: heartbeats and leaders."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import ReadOnly, Rules


class LeaseRules(Rules):
    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds")
        if seconds is not None and seconds <= 0:
            causes.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
        causes.non_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


RULES = LeaseRules()
