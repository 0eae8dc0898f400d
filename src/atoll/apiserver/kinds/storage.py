"""What CSI drivers say of themselves, and which volume is attached where."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

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


class VolumeAttachmentRules(Rules):
    def initial_status(self, obj: ReadOnly) -> Object:
        return {"attached": False}

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        causes.immutable("spec", new.get("spec"), old.get("spec"))


CSI_DRIVER, VOLUME_ATTACHMENT = CSIDriverRules(), VolumeAttachmentRules()
