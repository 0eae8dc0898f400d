"""Namespaces: each carries its name as a label, and the finalizer that empties it before it goes."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.machinery.kind import Kind

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"


class NamespaceRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        return names.label(name)

    def default(self, obj: Object) -> None:
        metadata = obj.setdefault("metadata", {})
        if metadata.get("name"):
            metadata.setdefault("labels", {})[NAME_LABEL] = metadata["name"]

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"phase": "Active"}

    def prepare_for_create(self, kind: Kind, obj: Object) -> None:
        super().prepare_for_create(kind, obj)
        finalizers = (obj.get("spec") or {}).get("finalizers") or []
        obj["spec"] = {"finalizers": finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]}

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        super().prepare_for_update(kind, new, old, subresource)
        if subresource == "finalize":
            new["metadata"] = dict(old["metadata"])
        elif "spec" in old:
            new["spec"] = old["spec"]

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"status.phase": (obj.get("status") or {}).get("phase") or "", "name": (obj.get("metadata") or {}).get("name") or ""}


RULES = NamespaceRules()
