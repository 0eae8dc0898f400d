"""Claims: access modes and a size are a must; after creation only the size may grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.label_selectors import validate_selector
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.units import parse_quantity

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_IMMUTABLE = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


class PersistentVolumeClaimRules(Rules):
    def default(self, obj: Object) -> None:
        default_claim_spec(obj.setdefault("spec", {}))

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"phase": "Pending"}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        validate_claim_spec(obj.get("spec") or {}, "spec", causes)

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        after, before = dict(new["spec"]), dict(old["spec"])
        # Once, the binder names the volume and the admission the class.
        free = ["resources", "volumeAttributesClassName"]
        free += [field for field in ("volumeName", "storageClassName") if field not in before]
        if {k: v for k, v in after.items() if k not in free} != {k: v for k, v in before.items() if k not in free}:
            causes.forbidden("spec", _IMMUTABLE)
        size, former = _requested(after), _requested(before)
        if size and former and parse_quantity(size) != parse_quantity(former):
            path = "spec.resources.requests.storage"
            if (old.get("status") or {}).get("phase") != "Bound":
                causes.forbidden("spec", _IMMUTABLE)
            elif parse_quantity(size) < parse_quantity(former):
                causes.forbidden(path, "field can not be less than status.capacity")


def default_claim_spec(spec: Object) -> None:
    spec.setdefault("volumeMode", "Filesystem")
    # dataSource is the older name of dataSourceRef; both are written.
    if "dataSource" in spec and "dataSourceRef" not in spec:
        spec["dataSourceRef"] = dict(spec["dataSource"])
    elif "dataSourceRef" in spec and "dataSource" not in spec and not spec["dataSourceRef"].get("namespace"):
        spec["dataSource"] = {field: value for field, value in spec["dataSourceRef"].items() if field != "namespace"}


def validate_claim_spec(spec: Mapping[str, Any], path: str, causes: Causes) -> None:
    validate_access_modes(spec, path, causes)
    validate_selector(spec.get("selector"), f"{path}.selector", causes)
    size = _requested(spec)
    if size is None:
        causes.required(f"{path}.resources[storage]")
    elif parse_quantity(size) <= 0:
        causes.invalid(f"{path}.resources[storage]", size, "must be greater than zero")
    if spec.get("storageClassName"):
        causes.each(f"{path}.storageClassName", spec["storageClassName"], names.subdomain(spec["storageClassName"]))
    if spec.get("volumeMode") not in ("Block", "Filesystem"):
        causes.unsupported(f"{path}.volumeMode", spec.get("volumeMode"), ("Block", "Filesystem"))


def validate_access_modes(spec: Mapping[str, Any], path: str, causes: Causes) -> None:
    modes = spec.get("accessModes") or ()
    if not modes:
        causes.required(f"{path}.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in ACCESS_MODES:
            causes.unsupported(f"{path}.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        causes.forbidden(f"{path}.accessModes", "may not use ReadWriteOncePod with other access modes")


def _requested(spec: Mapping[str, Any]) -> str | None:
    return ((spec.get("resources") or {}).get("requests") or {}).get("storage")


RULES = PersistentVolumeClaimRules()
