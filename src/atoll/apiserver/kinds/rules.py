"""What is special about a kind: its defaults, its rules between fields, and what an update may change.

`Rules` is what every kind has in common (metadata, generation, status as a subresource); `kinds/<kind>.py` overrides the hooks at its end.
All methods but `default` and `prepare_*` are pure; those change the object they are given, which is the request's own copy, never a stored
one.

The order for a write: schema, `default`, mutating admission, `default` again, `prepare_for_create` or `prepare_for_update`, `validate` or
`validate_update`, validating admission, store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.metadata import validate_metadata, validate_metadata_update
from atoll.apiserver.machinery.kind import Cause, Kind

Object = dict[str, Any]
ReadOnly = Mapping[str, Any]


class Rules:
    """The rules common to all kinds, and of custom resources."""

    # metadata.generation counts changes of spec, for the kinds that have one upstream.
    counts_generations: ClassVar[bool] = False
    # Whether checking one object may take long enough to be felt: it is then done in a thread.
    slow: ClassVar[bool] = False
    # Metadata and status are written through different doors for kinds with a status subresource; these are the fields of each.
    status_fields: ClassVar[tuple[str, ...]] = ("status",)

    # --- the public face

    def default(self, obj: Object) -> None:
        """Fill in what the API promises when a field is absent. Idempotent."""

    def prepare_for_create(self, kind: Kind, obj: Object) -> None:
        """Drop what a creator may not set (status, where it is a subresource) and set generation 1 for kinds that have one."""
        if kind.has_status:
            obj["status"] = self.initial_status(obj)
        if self.counts_generations:
            obj["metadata"]["generation"] = 1

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        """Keep from `old` what this door may not change (status, or by the status door all but status) and bump generation with spec."""
        if subresource == "status":
            _keep({*new, *old} - {"metadata", *self.status_fields}, new, old)
            _keep_metadata(kind, new, old)
        elif kind.has_status:
            _keep(self.status_fields, new, old)
        if self.counts_generations:
            generation = old["metadata"].get("generation", 1)
            changed = subresource != "status" and self.spec_of(new) != self.spec_of(old)
            new["metadata"]["generation"] = generation + 1 if changed else generation
        elif "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"]

    def prepare_for_delete(self, obj: Object, now: str) -> None:
        """Note in an object what its deletion, asked for at `now`, has to wait for."""

    def validate(self, kind: Kind, obj: ReadOnly) -> list[Cause]:
        """Causes of a 422 for a new object; empty when it is right."""
        causes = Causes()
        validate_metadata(obj, kind.namespaced, self.name_problems, causes)
        self.check(obj, causes)
        self.check_new(obj, causes)
        return self._with_missing(kind, obj, causes)

    def validate_update(self, kind: Kind, new: ReadOnly, old: ReadOnly, subresource: str = "") -> list[Cause]:
        """Causes of a 422 for an update: those of `validate` and changes of immutable fields."""
        causes = Causes()
        validate_metadata_update(new, old, causes)
        if subresource == "status":
            self.check_status(new, old, causes)
            return causes
        if self.spec_of(new) != self.spec_of(old):
            self.check(new, causes)
            self.check_change(new, old, causes, subresource)
            return self._with_missing(kind, new, causes)
        return causes

    def selectable_fields(self, obj: ReadOnly) -> dict[str, str]:
        """Field selectors of this kind with this object's values; a selector on any other name is a 400."""
        metadata = obj.get("metadata") or {}
        fields = {"metadata.name": metadata.get("name") or "", "metadata.namespace": metadata.get("namespace") or ""}
        fields.update(self.extra_fields(obj))
        return fields

    # --- what a kind may say of itself

    def name_problems(self, name: str) -> list[str]:
        return names.subdomain(name)

    def initial_status(self, obj: ReadOnly) -> Object:
        return {}

    def spec_of(self, obj: ReadOnly) -> Any:
        """What generation counts the changes of: everything but metadata and status."""
        return {key: value for key, value in obj.items() if key != "metadata" and key not in self.status_fields}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        """Rules between fields, for new and changed objects."""

    def check_new(self, obj: ReadOnly, causes: Causes) -> None:
        """Rules for new objects alone."""

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        """What an update may not change."""

    def check_status(self, new: ReadOnly, old: ReadOnly, causes: Causes) -> None:
        """Rules of status."""

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        """Field selectors beyond the name and namespace."""
        return {}

    # --- how

    def _with_missing(self, kind: Kind, obj: ReadOnly, causes: Causes) -> list[Cause]:
        """The schema's required fields too, where the kind's own rules have not spoken of them already."""
        told = {cause.field for cause in causes}
        causes.extend(cause for cause in kind.schema.missing(obj) if cause.field not in told)
        return causes


def _keep_metadata(kind: Kind, new: Object, old: ReadOnly) -> None:
    """The status door of a built-in kind changes labels and annotations too (kubelets annotate nodes there), a custom one's nothing."""
    metadata = dict(old["metadata"])
    doors = ("managedFields", "resourceVersion", "labels", "annotations") if kind.builtin else ("managedFields", "resourceVersion")
    _keep(doors, metadata, new["metadata"])
    new["metadata"] = metadata


def _keep(fields: Iterable[str], new: Object, old: ReadOnly) -> None:
    for field in fields:
        if field in old:
            new[field] = old[field]
        else:
            new.pop(field, None)
