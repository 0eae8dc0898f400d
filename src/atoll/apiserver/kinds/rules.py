"""What is special about a kind: its defaults, its rules between fields, and what an update may change.

`Rules` is what every kind has in common (metadata, generation, status as a subresource); `kinds/<kind>.py` adds the rest. All methods but
`default` and `prepare_*` are pure; those change the object they are given, which is the request's own copy, never a stored one.

The order for a write: schema, `default`, mutating admission, `default` again, `prepare_for_create` or `prepare_for_update`, `validate` or
`validate_update`, validating admission, store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.kind import Cause, Kind


class Rules:
    """The rules common to all kinds, and of custom resources."""

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in what the API promises when a field is absent. Idempotent."""

    def prepare_for_create(self, kind: Kind, obj: dict[str, Any]) -> None:
        """Drop what a creator may not set (status, where it is a subresource) and set generation 1 for kinds that have one."""

    def prepare_for_update(self, kind: Kind, new: dict[str, Any], old: Mapping[str, Any], subresource: str = "") -> None:
        """Keep from `old` what this door may not change (status, or by the status door all but status) and bump generation with spec."""

    def validate(self, kind: Kind, obj: Mapping[str, Any]) -> list[Cause]:
        """Causes of a 422 for a new object; empty when it is right."""
        return []

    def validate_update(self, kind: Kind, new: Mapping[str, Any], old: Mapping[str, Any], subresource: str = "") -> list[Cause]:
        """Causes of a 422 for an update: those of `validate` and changes of immutable fields."""
        return []

    def selectable_fields(self, obj: Mapping[str, Any]) -> dict[str, str]:
        """Field selectors of this kind with this object's values; a selector on any other name is a 400."""
        return {}
