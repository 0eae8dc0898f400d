"""The `filters` query parameter: a JSON map of lists, or, as old clients send it, a map of maps of truths.

`Filters.parse` reads both and refuses names the route does not know, with Docker's words. Matching several values of one name is "or",
several names "and". Label filters are "key" or "key=value", and every one of them must match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import orjson

from atoll.errors import InvalidInput


class Filters:
    """Parsed filters: name to the values given."""

    def __init__(self, values: Mapping[str, Iterable[str]] | None = None) -> None:
        self._values = {name: tuple(given) for name, given in (values or {}).items()}

    @classmethod
    def parse(cls, text: str | None, known: Iterable[str] = ()) -> Filters:
        """Raises InvalidInput for what is not a map of strings, or names a filter outside `known` (when given)."""
        if not text:
            return cls()
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"invalid filters: not JSON: {text[:80]}") from error
        if not isinstance(raw, dict):
            raise InvalidInput("invalid filters: expected a JSON object of lists")
        values: dict[str, list[str]] = {}
        for name, given in raw.items():
            values[name] = _values(name, given)
        allowed = set(known)
        unknown = sorted(set(values) - allowed) if allowed else []
        if unknown:
            raise InvalidInput(f"invalid filter '{unknown[0]}'")
        return cls(values)

    @classmethod
    def of(cls, filters: Filters | Mapping[str, Iterable[str]] | None) -> Filters:
        return filters if isinstance(filters, Filters) else cls(filters)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, name: str) -> bool:
        return bool(self._values.get(name))

    def get(self, name: str) -> tuple[str, ...]:
        return self._values.get(name, ())

    def as_dict(self) -> dict[str, list[str]]:
        """The plain form that the packages below take."""
        return {name: list(values) for name, values in self._values.items()}

    def one(self, name: str) -> str | None:
        """The only value of a filter that takes one."""
        values = self.get(name)
        if len(values) > 1:
            raise InvalidInput(f"invalid filter '{name}': more than one value given")
        return values[0] if values else None

    def flag(self, name: str) -> bool | None:
        value = self.one(name)
        if value is None:
            return None
        if value.lower() in {"1", "true", "t"}:
            return True
        if value.lower() in {"0", "false", "f"}:
            return False
        raise InvalidInput(f"invalid filter '{name}={value}'")

    def exact(self, name: str, *candidates: str | None) -> bool:
        values = self.get(name)
        return not values or any(candidate in values for candidate in candidates)

    def prefix(self, name: str, candidate: str) -> bool:
        values = self.get(name)
        return not values or any(candidate.startswith(value) for value in values)

    def pattern(self, name: str, *candidates: str) -> bool:
        """Docker treats some values as regular expressions; what is not one is compared as plain text."""
        values = self.get(name)
        return not values or any(_search(value, candidate) for value in values for candidate in candidates)

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        return all(_has_label(labels, wanted) for wanted in self.get(name))

    def no_labels(self, labels: Mapping[str, str]) -> bool:
        """The negative form "label!" of the prune routes."""
        return not any(_has_label(labels, unwanted) for unwanted in self.get("label!"))


def _values(name: str, given: object) -> list[str]:
    if isinstance(given, dict):
        given = [value for value, wanted in given.items() if wanted]
    elif isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(value, str) for value in given):
        raise InvalidInput(f"invalid filter '{name}': expected a list of strings")
    return given


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _search(pattern: str, text: str) -> bool:
    if pattern in text:
        return True
    # Docker's names are short, and only plain anchors and classes occur in practice; a pattern that could backtrack without bound is
    # compared as text alone.
    if len(pattern) > 128 or re.search(r"[*+}]\)?[*+{]", pattern):
        return False
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False
