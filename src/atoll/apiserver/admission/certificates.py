"""Who may do what with certificate requests: the plug-ins CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

A request carries who made it, whatever it says itself. Approving and signing are rights on its signer (the virtual resource `signers`, by
name or by `<domain>/*`), beside the right to write the subresource. Nobody gets a certificate of the masters' group this way.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.call import MASTERS, Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.client.signers import API_CLIENT, load_request, wanted_of
from atoll.errors import InvalidInput

GROUP = "certificates.k8s.io"


def set_requestor(_core: Core, call: Call, new: Object) -> None:
    spec = new.setdefault("spec", {})
    for name in ("username", "uid", "groups", "extra"):
        spec.pop(name, None)
    user = call.user
    spec["username"] = user.name
    if user.uid:
        spec["uid"] = user.uid
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {name: list(values) for name, values in user.extra.items()}


def check_certificate_request(authorizer: Authorizer, call: Call, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Raises StatusError 403."""
    spec = new.get("spec") or {}
    if old is None:
        _check_subject(call, spec)
    elif call.subresource == "approval":
        _demand(authorizer, call, "approve", spec.get("signerName") or "")
    elif call.subresource == "status" and _is_signing(new.get("status") or {}, old.get("status") or {}):
        _demand(authorizer, call, "sign", spec.get("signerName") or "")


def _is_signing(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    failed = [[c for c in status.get("conditions") or () if c.get("type") == "Failed"] for status in (new, old)]
    return new.get("certificate") != old.get("certificate") or failed[0] != failed[1]


def _demand(authorizer: Authorizer, call: Call, verb: str, signer: str) -> None:
    domain = signer.partition("/")[0]
    for name in (signer, f"{domain}/*"):
        if authorizer.allows(call.user, Attributes(verb, GROUP, "signers", "", name)):
            return
    raise statuses.forbidden(call.kind, call.name, f'user not permitted to {verb} requests with signerName "{signer}"')


def _check_subject(call: Call, spec: Mapping[str, Any]) -> None:
    if spec.get("signerName") != API_CLIENT:
        return
    try:
        wanted = wanted_of(load_request(b64decode(spec.get("request") or "", validate=True)))
    except (InvalidInput, binascii.Error):
        return  # refused as invalid
    if MASTERS in wanted.organisations:
        raise statuses.forbidden(call.kind, call.name, f"use of {API_CLIENT} signer with {MASTERS} group is not allowed")
