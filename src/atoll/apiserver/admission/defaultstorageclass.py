"""DefaultStorageClass: a claim that names no class gets the one marked as default; the newest when several are marked."""

from __future__ import annotations

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.cacher import Object

MARK = "storageclass.kubernetes.io/is-default-class"
LEGACY = "volume.beta.kubernetes.io/storage-class"  # the class as an annotation; still read upstream


def set_default_storage_class(core: Core, _call: Call, new: Object) -> None:
    spec = new.setdefault("spec", {})
    if spec.get("storageClassName") is not None or LEGACY in (new["metadata"].get("annotations") or {}):
        return
    kind = core.registry.get("storage.k8s.io", "v1", "storageclasses")
    if kind is None:
        return
    marked = [
        item.obj["metadata"] for item in core.cacher(kind).items() if (item.obj["metadata"].get("annotations") or {}).get(MARK) == "true"
    ]
    if marked:
        newest = max(marked, key=lambda metadata: (metadata["creationTimestamp"], metadata["name"]))
        spec["storageClassName"] = newest["name"]
