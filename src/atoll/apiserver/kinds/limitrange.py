"""Limit ranges and quotas: bounds on what a namespace's objects may ask for."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.resources import validate_not_negative
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.units import parse_quantity

_SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)


class LimitRangeRules(Rules):
    def default(self, obj: Object) -> None:
        for limit in (obj.get("spec") or {}).get("limits") or ():
            if limit.get("type") != "Container":
                continue
            # A container's limit is by default the maximum, its request by default its limit, else the minimum.
            for field, source in (("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")):
                for name, amount in (limit.get(source) or {}).items():
                    limit.setdefault(field, {}).setdefault(name, amount)

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        for index, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
            path = f"spec.limits[{index}]"
            for name, low in (limit.get("min") or {}).items():
                high = (limit.get("max") or {}).get(name)
                if high is not None and parse_quantity(low) > parse_quantity(high):
                    causes.invalid(f"{path}.min[{name}]", low, f"min value {low} is greater than max value {high}")
            for name, request in (limit.get("defaultRequest") or {}).items():
                default = (limit.get("default") or {}).get(name)
                if default is not None and parse_quantity(request) > parse_quantity(default):
                    words = f"default request value {request} is greater than default limit value {default}"
                    causes.invalid(f"{path}.defaultRequest[{name}]", request, words)


class ResourceQuotaRules(Rules):
    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        for name, amount in (spec.get("hard") or {}).items():
            validate_not_negative(amount, f"spec.hard[{name}]", causes)
        for scope in spec.get("scopes") or ():
            if scope not in _SCOPES:
                causes.invalid("spec.scopes", scope, "unsupported scope")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        after, before = (new.get("spec") or {}).get("scopes"), (old.get("spec") or {}).get("scopes")
        causes.immutable("spec.scopes", after, before)


RULES, QUOTA_RULES = LimitRangeRules(), ResourceQuotaRules()
