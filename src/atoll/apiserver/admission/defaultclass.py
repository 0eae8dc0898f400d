"""DefaultStorageClass and DefaultIngressClass: who names no class gets the one marked as default; the newest when several are marked."""

from __future__ import annotations

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.items import Object

STORAGE_MARKS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
STORAGE_LEGACY = "volume.beta.kubernetes.io/storage-class"  # the class as an annotation; still read upstream
INGRESS_MARKS = ("ingressclass.kubernetes.io/is-default-class",)
INGRESS_LEGACY = "kubernetes.io/ingress.class"


def set_default_storage_class(core: Core, _call: Call, new: Object) -> None:
    spec = new.setdefault("spec", {})
    if spec.get("storageClassName") is not None or STORAGE_LEGACY in (new["metadata"].get("annotations") or {}):
        return
    found = _default(core, "storage.k8s.io", "storageclasses", STORAGE_MARKS)
    if found:
        spec["storageClassName"] = found


def set_default_ingress_class(core: Core, _call: Call, new: Object) -> None:
    spec = new.setdefault("spec", {})
    if spec.get("ingressClassName") is not None or INGRESS_LEGACY in (new["metadata"].get("annotations") or {}):
        return
    found = _default(core, "networking.k8s.io", "ingressclasses", INGRESS_MARKS)
    if found:
        spec["ingressClassName"] = found


def _default(core: Core, group: str, plural: str, marks: tuple[str, ...]) -> str:
    """The name of the marked class; of several made in the same second the first by name."""
    kind = core.registry.get(group, "v1", plural)
    found = [item.obj["metadata"] for item in core.cacher(kind).in_order()] if kind else []
    marked = [metadata for metadata in found if any((metadata.get("annotations") or {}).get(mark) == "true" for mark in marks)]
    return str(max(marked, key=lambda metadata: metadata["creationTimestamp"])["name"]) if marked else ""
