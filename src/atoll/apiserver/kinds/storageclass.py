"""Storage classes: all but the labels, allowVolumeExpansion and mount options stays as it was made."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules


class StorageClassRules(Rules):
    def default(self, obj: Object) -> None:
        obj.setdefault("reclaimPolicy", "Delete")
        obj.setdefault("volumeBindingMode", "Immediate")

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        provisioner = obj.get("provisioner") or ""
        if not provisioner:
            causes.required("provisioner")
        else:
            causes.each("provisioner", provisioner.lower(), names.qualified_name(provisioner.lower()))
        causes.one_of("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"))
        causes.one_of("volumeBindingMode", obj.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"))

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        for field in ("parameters", "provisioner", "reclaimPolicy"):
            if new.get(field) != old.get(field):
                causes.forbidden(field, f"updates to {field} are forbidden.")
        causes.immutable("volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"))


RULES = StorageClassRules()
