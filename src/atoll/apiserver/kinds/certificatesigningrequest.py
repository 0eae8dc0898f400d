"""Certificate requests: the spec never changes; each subresource writes its own part of status."""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.machinery.kind import Kind

_DECISIONS = ("Approved", "Denied")


class CertificateSigningRequestRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        return []

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("usages"):
            spec["usages"] = ["digital signature", "key encipherment"]

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        status, former = new.get("status") or {}, old.get("status") or {}
        super().prepare_for_update(kind, new, old, subresource)
        new["spec"] = old["spec"]
        if subresource == "approval":
            new["metadata"] = dict(old["metadata"])
            new["status"] = {**former, **({"conditions": status["conditions"]} if "conditions" in status else {})}
        elif subresource == "status":
            decided = [condition for condition in former.get("conditions") or () if condition.get("type") in _DECISIONS]
            others = [condition for condition in status.get("conditions") or () if condition.get("type") not in _DECISIONS]
            new["status"] = {**status, **({"conditions": [*decided, *others]} if decided or others else {})}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        if not spec.get("request"):
            causes.required("spec.request")
        signer = spec.get("signerName") or ""
        if not signer:
            causes.required("spec.signerName")
        elif "/" not in signer.strip("/"):
            causes.invalid("spec.signerName", signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
        seconds = spec.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            causes.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)")

    def check_status(self, new: ReadOnly, old: ReadOnly, causes: Causes) -> None:
        types = {condition.get("type") for condition in (new.get("status") or {}).get("conditions") or ()}
        if set(_DECISIONS) <= types:
            causes.invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive")

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


RULES = CertificateSigningRequestRules()
