"""What is wrong with an object, field by field: the causes of a 422, in upstream's words (apimachinery, util/validation/field)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson

from atoll.apiserver.machinery.kind import Cause

IMMUTABLE = "field is immutable"


class Causes(list[Cause]):
    """Collects causes. A `path` is written as messages show it: spec.containers[0].name."""

    def required(self, path: str, detail: str = "") -> None:
        self.append(Cause("FieldValueRequired", f"Required value: {detail}" if detail else "Required value", path))

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self.append(Cause("FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}", path))

    def unsupported(self, path: str, value: Any, supported: Iterable[str]) -> None:
        """The supported values are told in the order given; upstream's are sorted but for a few."""
        listed = ", ".join(f'"{name}"' for name in supported)
        self.append(Cause("FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}", path))

    def duplicate(self, path: str, value: Any) -> None:
        self.append(Cause("FieldValueDuplicate", f"Duplicate value: {shown(value)}", path))

    def forbidden(self, path: str, detail: str) -> None:
        self.append(Cause("FieldValueForbidden", f"Forbidden: {detail}", path))

    def not_found(self, path: str, value: Any) -> None:
        self.append(Cause("FieldValueNotFound", f"Not found: {shown(value)}", path))

    def too_long(self, path: str, limit: int) -> None:
        self.append(Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", path))

    def too_many(self, path: str, actual: int, limit: int) -> None:
        self.append(Cause("FieldValueTooMany", f"Too many: {actual}: must have at most {limit} item{'s' if limit != 1 else ''}", path))

    def each(self, path: str, value: Any, problems: Iterable[str]) -> None:
        """One `invalid` for each problem a check of `names` has found."""
        for problem in problems:
            self.invalid(path, value, problem)

    def immutable(self, path: str, new: Any, old: Any) -> None:
        """Absent and empty are the same."""
        if (new or None) != (old or None):
            self.invalid(path, new, IMMUTABLE)

    def one_of(self, path: str, value: Any, supported: Iterable[str]) -> None:
        """An empty value is required instead."""
        names = list(supported)
        if not value:
            self.required(path)
        elif value not in names:
            self.unsupported(path, value, names)

    def non_negative(self, path: str, value: int | None) -> None:
        if value is not None and value < 0:
            self.invalid(path, value, "must be greater than or equal to 0")


def shown(value: Any) -> str:
    """A value as messages quote it: strings as Go's %q, the rest as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else orjson.dumps(value).decode()
