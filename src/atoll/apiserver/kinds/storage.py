"""What CSI drivers say of themselves."""

from __future__ import annotations

from atoll.apiserver.kinds.rules import Object, Rules

_DEFAULTS = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "storageCapacity": False,
    "fsGroupPolicy": "ReadWriteOnceWithFSType",
    "requiresRepublish": False,
    "seLinuxMount": False,
}


class CSIDriverRules(Rules):
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        for field, value in _DEFAULTS.items():
            spec.setdefault(field, value)
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]


CSI_DRIVER = CSIDriverRules()
