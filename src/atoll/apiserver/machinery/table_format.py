"""How table cells write ages, labels, lists and access modes: as upstream's printers do, so that scripts find what they expect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from atoll.apiserver.machinery.kind import Column

NONE, UNKNOWN, UNSET = "<none>", "<unknown>", "<unset>"
_SHOWN_MAX = 3
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_TYPES = {"int": "integer", "bool": "boolean"}

Object = Mapping[str, Any]


class Age(NamedTuple):
    """Reads timestamps against one moment, in seconds since the epoch."""

    now: float

    def since(self, timestamp: str | None) -> str:
        return human_duration(self.now - seconds_of(timestamp)) if timestamp else UNKNOWN

    def of(self, obj: Object) -> str:
        return self.since((obj.get("metadata") or {}).get("creationTimestamp"))


def columns(text: str) -> tuple[Column, ...]:
    """From "Name, Desired:int; Images": a string where no type is given; what follows the semicolon is shown by -o wide only."""
    made = []
    for priority, part in enumerate(text.split(";")):
        for word in filter(None, (word.strip() for word in part.split(","))):
            name, _, kind = word.partition(":")
            made.append(Column(name, _TYPES.get(kind, "string"), "name" if name == "Name" else "", "", priority))
    return tuple(made)


def seconds_of(timestamp: str) -> float:
    """metav1.Time or MicroTime, always UTC, to seconds since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp()


def human_duration(seconds: float) -> str:
    """Two units at most, and only one where the second would be noise (apimachinery, util/duration)."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    total = max(total, 0)
    minutes, hours = total // 60, total // 3600
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def labels(pairs: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((pairs or {}).items())) or NONE


def selector(value: Object | None) -> str:
    """A LabelSelector in the words of -l."""
    if value is None:
        return NONE
    terms = [f"{key}={wanted}" for key, wanted in sorted((value.get("matchLabels") or {}).items())]
    for expression in value.get("matchExpressions") or ():
        key, values = expression.get("key"), ",".join(sorted(expression.get("values") or ()))
        operator = expression.get("operator")
        if operator in ("In", "NotIn"):
            terms.append(f"{key} {operator.lower()} ({values})")
        else:
            terms.append(f"!{key}" if operator == "DoesNotExist" else str(key))
    return ",".join(terms) or NONE


def containers(spec: Object) -> list[str]:
    """Two cells: the names and the images of a pod spec's containers."""
    listed: Sequence[Object] = spec.get("containers") or ()
    return [",".join(c.get("name") or "" for c in listed), ",".join(c.get("image") or "" for c in listed)]


def access_modes(modes: Iterable[str] | None) -> str:
    given = set(modes or ())
    return ",".join(short for mode, short in _MODES.items() if mode in given)


def first_few(items: Sequence[str], empty: str) -> str:
    """Three, and how many more there are."""
    more = f" + {len(items) - _SHOWN_MAX} more..." if len(items) > _SHOWN_MAX else ""
    return ",".join(items[:_SHOWN_MAX]) + more or empty


def name_of(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("name") or "")


def is_deleted(obj: Object) -> bool:
    return bool((obj.get("metadata") or {}).get("deletionTimestamp"))


def condition(status: Object, kind: str) -> Object:
    return next((entry for entry in status.get("conditions") or () if entry.get("type") == kind), {})


def flag(value: bool | None) -> str:
    return UNSET if value is None else str(value)
