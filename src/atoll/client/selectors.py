"""Label selectors as they stand in objects: `matchLabels` and `matchExpressions` (meta/v1 LabelSelector), and the plain maps of services.

A missing selector matches nothing, an empty one everything, as upstream's LabelSelectorAsSelector.
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.client.objects import Object
from atoll.errors import InvalidInput


def matches_map(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Every pair of the selector is in the labels."""
    return all(labels.get(key) == value for key, value in selector.items())


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Raises InvalidInput on an operator that a LabelSelector does not have."""
    if selector is None:
        return False
    if not matches_map(selector.get("matchLabels") or {}, labels):
        return False
    return all(_expression(expression, labels) for expression in selector.get("matchExpressions") or ())


def _expression(expression: Object, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise InvalidInput(f'"{operator}" is not a valid label selector operator')


def format_map(selector: Mapping[str, str]) -> str:
    """The query form of a plain map: `app=web,tier=front`."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
