"""Certificate requests: the spec never changes; each subresource writes its own part of status, and a decision stays."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.machinery.kind import Kind
from atoll.client.signers import LEGACY, load_request
from atoll.errors import InvalidInput
from atoll.units import timestamp_seconds

_DECISIONS = ("Approved", "Denied")
_LASTING = (*_DECISIONS, "Failed")
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only",
    "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement",
    "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping",
)  # fmt: skip


class CertificateSigningRequestRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        return []

    def prepare_for_update(self, kind: Kind, new: Object, old: ReadOnly, subresource: str = "") -> None:
        status, former = new.get("status") or {}, old.get("status") or {}
        super().prepare_for_update(kind, new, old, subresource)
        new["spec"] = old.get("spec") or {}
        if subresource == "approval":
            new["status"] = {**former, **({"conditions": status["conditions"]} if "conditions" in status else {})}
        elif subresource == "status":
            decided = [condition for condition in former.get("conditions") or () if condition.get("type") in _DECISIONS]
            others = [condition for condition in status.get("conditions") or () if condition.get("type") not in _DECISIONS]
            new["status"] = {**status, **({"conditions": [*decided, *others]} if decided or others else {})}
        if subresource:
            _set_times(new["status"], former)

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        _check_request(spec, causes)
        signer = spec.get("signerName") or ""
        if not signer:
            causes.required("spec.signerName")
        elif signer == LEGACY:
            causes.invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
        elif "/" not in signer.strip("/"):
            causes.invalid("spec.signerName", signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
        usages = spec.get("usages") or []
        if not usages:
            causes.required("spec.usages", "usages is required")
        for index, usage in enumerate(usages):
            if usage not in _USAGES:
                causes.unsupported(f"spec.usages[{index}]", usage, _USAGES)
            elif usage in usages[:index]:
                causes.duplicate(f"spec.usages[{index}]", usage)
        seconds = spec.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            causes.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)")

    def validate_update(self, kind: Kind, new: ReadOnly, old: ReadOnly, subresource: str = "") -> list[Any]:
        causes = Causes(super().validate_update(kind, new, old, subresource))
        if subresource == "approval":
            self.check_status(new, old, causes)
        return causes

    def check_status(self, new: ReadOnly, old: ReadOnly, causes: Causes) -> None:
        status, former = new.get("status") or {}, old.get("status") or {}
        has, had = (_by_type(each) for each in (status, former))
        if has.keys() >= set(_DECISIONS):
            causes.invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive")
        for name in _LASTING:
            if name in had and name not in has:
                causes.forbidden("status.conditions", f'updates may not remove a condition of type "{name}"')
            if name in has and (has[name].get("status") or "True") != "True":
                causes.unsupported("status.conditions[].status", has[name].get("status"), ("True",))
        certificate, before = status.get("certificate"), former.get("certificate")
        if before and certificate != before:
            causes.forbidden("status.certificate", "updates may not modify a certificate that is set")
        elif certificate and not before:
            _check_certificate(certificate, causes)

    def extra_fields(self, obj: ReadOnly) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


def _by_type(status: ReadOnly) -> dict[str, ReadOnly]:
    return {str(condition.get("type")): condition for condition in status.get("conditions") or ()}


def _set_times(status: Object, former: ReadOnly) -> None:
    """When a condition was last written, and when its status last turned, is the server's to say where the writer does not."""
    had = _by_type(former)
    now = timestamp_seconds()
    for condition in status.get("conditions") or ():
        before = had.get(str(condition.get("type")))
        condition.setdefault("status", "True")
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = now
        if not condition.get("lastTransitionTime"):
            same = before is not None and before.get("status") == condition["status"]
            condition["lastTransitionTime"] = (before or {}).get("lastTransitionTime") or now if same else now


def _check_request(spec: ReadOnly, causes: Causes) -> None:
    if not spec.get("request"):
        causes.invalid("spec.request", "", "PEM block type must be CERTIFICATE REQUEST")
        return
    try:
        load_request(b64decode(spec["request"], validate=True))
    except binascii.Error:
        causes.invalid("spec.request", spec["request"], "must be base64")
    except InvalidInput as error:
        causes.invalid("spec.request", spec["request"], str(error))


def _check_certificate(encoded: str, causes: Causes) -> None:
    try:
        if _CERTIFICATE not in b64decode(encoded, validate=True):
            causes.invalid("status.certificate", "<certificate data>", "must contain at least one CERTIFICATE PEM block")
    except binascii.Error:
        causes.invalid("status.certificate", "<certificate data>", "must be base64")


RULES = CertificateSigningRequestRules()
