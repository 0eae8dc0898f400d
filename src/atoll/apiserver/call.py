"""Who asks for what: the value that walks the pipeline with a request, whichever door it came by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from atoll.apiserver.machinery.kind import Kind

if TYPE_CHECKING:
    from atoll.apiserver.audit.record import Record

FieldValidation = Literal["Strict", "Warn", "Ignore"]
Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"  # passes every authorisation, as upstream


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def is_master(self) -> bool:
        return MASTERS in self.groups


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


@dataclass(slots=True)
class Call:
    """One operation on a resource. `namespace` is None for cluster-scoped kinds and for all namespaces at once.

    `kind` is the kind under which the object is stored, `served` the one the client speaks where that is another version.
    `warnings` go to the client as Warning headers, `annotations` to the audit log, of which `record` is what it tells of this.
    """

    user: User
    verb: Verb
    kind: Kind
    namespace: str | None = None
    name: str | None = None
    subresource: str = ""
    dry_run: bool = False
    field_manager: str = ""
    field_validation: FieldValidation = "Ignore"
    warnings: list[str] = field(default_factory=list)
    served: Kind | None = None
    annotations: dict[str, str] | None = None
    record: Record | None = None

    @property
    def face(self) -> Kind:
        """The kind as the client sees it."""
        return self.served or self.kind

    @property
    def selected(self) -> Kind:
        """The kind whose fields selectors name: each version of a custom resource has its own, a built-in kind those it is stored with."""
        return self.kind if self.kind.builtin else self.face

    @property
    def key(self) -> str:
        """The object's key in its cacher."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name or ""

    def annotate(self, key: str, value: str) -> None:
        """Leave a note for the audit log."""
        if self.annotations is None:
            self.annotations = {}
        self.annotations[key] = value
