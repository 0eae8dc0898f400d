"""The `Rules` of a custom resource: what its definition says, where built-in kinds have a module of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll.apiserver.customresources.check import ABSENT, check
from atoll.apiserver.customresources.defaults import fill_defaults
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.metadata import validate_metadata, validate_metadata_update
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.machinery.kind import Cause, Kind
from atoll.apiserver.machinery.table_custom import evaluate
from atoll.errors import StatusError

if TYPE_CHECKING:
    from atoll.apiserver.customresources.schema import CustomSchema


class CustomRules(Rules):
    counts_generations = True

    def __init__(self, schema: CustomSchema) -> None:
        self._schema = schema

    def default(self, obj: Object) -> None:
        fill_defaults(self._schema.root, obj)

    def prepare_for_create(self, kind: Kind, obj: Object) -> None:
        if self._schema.is_terminating():
            raise StatusError(405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating", {})
        if kind.has_status:
            obj.pop("status", None)
        obj["metadata"]["generation"] = 1

    def spec_of(self, obj: ReadOnly) -> Any:
        """Status counts as spec where it has no door of its own."""
        apart = ("metadata", "status") if self._schema.has_status else ("metadata",)
        return {name: value for name, value in obj.items() if name not in apart}

    def validate(self, kind: Kind, obj: ReadOnly) -> list[Cause]:
        causes = Causes()
        validate_metadata(obj, kind.namespaced, self.name_problems, causes)
        self._judge(obj, causes, ABSENT)
        return causes

    def validate_update(self, kind: Kind, new: ReadOnly, old: ReadOnly, subresource: str = "") -> list[Cause]:
        causes = Causes()
        validate_metadata_update(new, old, causes)
        self._judge(new, causes, old)
        return causes

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {field: _as_text(evaluate(f".{field}", obj)) for field in self._schema.selectable}

    def _judge(self, obj: ReadOnly, causes: Causes, old: Any) -> None:
        found = Causes()
        check(self._schema.root, _without_system(obj), "", found, ABSENT if old is ABSENT else _without_system(old))
        if not found:  # rules may count on the types they were compiled for
            self._schema.runner.run(obj, found, old)
        causes.extend(found)


def _without_system(obj: ReadOnly) -> Object:
    """The object as its schema is asked about it: of metadata only what a schema can restrict."""
    metadata = {name: value for name, value in obj["metadata"].items() if name in ("name", "generateName")}
    return {**obj, "metadata": metadata}


def _as_text(found: list[Any]) -> str:
    if not found or found[0] is None:
        return ""
    value = found[0]
    return str(value).lower() if isinstance(value, bool) else str(value)
