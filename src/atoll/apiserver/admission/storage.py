"""StorageObjectInUseProtection and PersistentVolumeClaimResize: claims and volumes do not vanish in use, and grow only where a class lets
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from atoll.apiserver.admission.defaultclass import STORAGE_LEGACY
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.units import parse_quantity

FINALIZERS = {"persistentvolumeclaims": "kubernetes.io/pvc-protection", "persistentvolumes": "kubernetes.io/pv-protection"}


def protect_storage(_core: Core, call: Call, new: Object) -> None:
    finalizers = new["metadata"].setdefault("finalizers", [])
    finalizer = FINALIZERS[call.kind.plural]
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def check_resize(core: Core, call: Call, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Raises StatusError 403 for a claim that may not grow."""
    if old is None or call.subresource or _size(new) <= _size(old):
        return
    if (old.get("status") or {}).get("phase") != "Bound":
        raise statuses.forbidden(call.kind, call.name, "Only bound persistent volume claims can be expanded")
    annotations = old["metadata"].get("annotations") or {}
    name = annotations.get(STORAGE_LEGACY) or (old.get("spec") or {}).get("storageClassName") or ""
    item = core.find("storage.k8s.io", "v1", "storageclasses", name) if name else None
    if item is None or not item.obj.get("allowVolumeExpansion"):
        why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
        raise statuses.forbidden(call.kind, call.name, why)


def _size(claim: Mapping[str, Any]) -> Decimal:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return parse_quantity(requests.get("storage", 0))
