"""Volumes: one source, a capacity; the source stays."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.persistentvolumeclaim import validate_access_modes
from atoll.apiserver.kinds.pod_spec import validate_node_selector
from atoll.apiserver.kinds.pod_volumes import validate_host_path
from atoll.apiserver.kinds.resources import validate_not_negative
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_POLICIES = ("Delete", "Recycle", "Retain")
_NOT_SOURCES = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


class PersistentVolumeRules(Rules):
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")
        if "hostPath" in spec:
            spec["hostPath"].setdefault("type", "")

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"phase": "Pending"}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        validate_access_modes(spec, "spec", causes)
        capacity = spec.get("capacity") or {}
        if not capacity:
            causes.required("spec.capacity")
        elif list(capacity) != ["storage"]:
            causes.unsupported("spec.capacity", next(name for name in capacity if name != "storage"), ("storage",))
        for name, amount in capacity.items():
            if not validate_not_negative(amount, f"spec.capacity[{name}]", causes):
                causes.invalid(f"spec.capacity[{name}]", amount, "must be greater than zero")
        if spec.get("persistentVolumeReclaimPolicy") not in _POLICIES:
            causes.unsupported("spec.persistentVolumeReclaimPolicy", spec.get("persistentVolumeReclaimPolicy"), _POLICIES)
        sources = _sources(spec)
        if not sources:
            causes.required("spec", "must specify a volume type")
        for extra in sources[1:]:
            causes.forbidden(f"spec.{extra}", "may not specify more than 1 volume type")
        if "hostPath" in spec:
            validate_host_path(spec["hostPath"], "spec.hostPath", causes)
        required = (spec.get("nodeAffinity") or {}).get("required")
        if required is not None:
            validate_node_selector(required, "spec.nodeAffinity.required", causes)
        elif "local" in spec:
            causes.required("spec.nodeAffinity", "Local volume requires node affinity")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        after, before = new["spec"], old["spec"]
        if {name: after[name] for name in _sources(after)} != {name: before[name] for name in _sources(before)}:
            causes.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        causes.immutable("spec.volumeMode", after.get("volumeMode"), before.get("volumeMode"))

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"name": (obj.get("metadata") or {}).get("name") or ""}


def _sources(spec: ReadOnly) -> list[str]:
    return [name for name in spec if name not in _NOT_SOURCES]


RULES = PersistentVolumeRules()
