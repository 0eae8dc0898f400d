"""Rules of resource lists: the requests and limits of containers, quotas and volume claims."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.units import parse_quantity

_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_NOT_NEGATIVE = "must be greater than or equal to 0"


def validate_container_resources(resources: Mapping[str, Any], path: str, causes: Causes) -> None:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for word, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            _validate_name(name, f"{path}.{word}", causes)
            _validate_amount(name, amount, f"{path}.{word}[{name}]", causes)
    for name, request in requests.items():
        limit = limits.get(name)
        if limit is not None and parse_quantity(request) > parse_quantity(limit):
            causes.invalid(f"{path}.requests", request, f"must be less than or equal to {name} limit of {limit}")
        elif "/" in name and limit is None:
            causes.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def validate_not_negative(amount: str, path: str, causes: Causes) -> Decimal:
    value = parse_quantity(amount)
    if value < 0:
        causes.invalid(path, amount, _NOT_NEGATIVE)
    return value


def _validate_name(name: str, path: str, causes: Causes) -> None:
    at = f"{path}[{name}]"
    problems = names.qualified_name(name)
    causes.each(at, name, problems)
    if problems or name in _STANDARD or name.startswith("hugepages-"):
        return
    if "/" not in name:
        causes.invalid(at, name, "must be a standard resource type or fully qualified")
        causes.invalid(at, name, "must be a standard resource for containers")


def _validate_amount(name: str, amount: str, path: str, causes: Causes) -> None:
    value = validate_not_negative(amount, path, causes)
    if "/" in name and value != value.to_integral_value():
        causes.invalid(path, amount, "must be an integer")
