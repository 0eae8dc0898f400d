"""Label selectors inside objects: their syntax, and whether they select given labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.metadata import validate_labels

_NEEDS_VALUES = ("In", "NotIn")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def validate_selector(selector: Mapping[str, Any] | None, path: str, causes: Causes) -> None:
    if not selector:
        return
    validate_labels(selector.get("matchLabels"), f"{path}.matchLabels", causes)
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = expression.get("operator"), expression.get("values") or ()
        if operator in _NEEDS_VALUES and not values:
            causes.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            causes.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in _OPERATORS:
            causes.invalid(f"{at}.operator", operator or "", "not a valid selector operator")
        causes.each(f"{at}.key", expression.get("key") or "", names.qualified_name(expression.get("key") or ""))
        for number, value in enumerate(values):
            causes.each(f"{at}.values[{number}]", value, names.label_value(value))


def is_empty(selector: Mapping[str, Any] | None) -> bool:
    return not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """metav1.LabelSelector: all its terms must hold."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key"), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values  # type: ignore[arg-type]
        case "NotIn":
            return labels.get(key) not in values  # type: ignore[arg-type]
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
