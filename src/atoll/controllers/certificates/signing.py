"""Approved requests to one of Kubernetes' own signers are signed with the cluster's authority.

The certificate says what the request asks for (subject, alternative names, usages) and lasts as long as it asks, at most a year and never
longer than the authority itself. A request that its signer does not sign gets the condition Failed, which says why.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from base64 import b64encode
from pathlib import Path
from typing import Any

from atoll.client.objects import Object, condition_of, copy_of
from atoll.client.resources import CERTIFICATE_SIGNING_REQUESTS
from atoll.client.signers import SIGNERS, problem, wanted_of
from atoll.controllers.base import Context, Controller
from atoll.controllers.certificates.requests import request_of
from atoll.errors import InvalidInput
from atoll.units import timestamp_seconds

DURATION_MAX = dt.timedelta(days=365)  # kube-controller-manager's --cluster-signing-duration
DURATION_MIN = dt.timedelta(minutes=10)
BACKDATE = dt.timedelta(minutes=5)  # clocks differ


class CertificateSigningController(Controller):
    name = "certificatesigningrequest-signing-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._requests = self.informer(CERTIFICATE_SIGNING_REQUESTS, handler=self.enqueue)

    async def reconcile(self, key: str) -> None:
        found, authority = self._requests.get(key), self.config.signing_authority
        if found is None or authority is None or found["spec"].get("signerName") not in SIGNERS:
            return
        if (found.get("status") or {}).get("certificate") or not condition_of(found, "Approved"):
            return
        if condition_of(found, "Denied") or condition_of(found, "Failed"):
            return
        changed = copy_of(found)
        status = changed.setdefault("status", {})
        try:
            certificate = await asyncio.to_thread(sign, found, *authority, dt.datetime.fromtimestamp(self.clock(), dt.UTC))
        except InvalidInput as error:
            now = timestamp_seconds(self.clock())
            failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": str(error), "lastUpdateTime": now}
            status.setdefault("conditions", []).append(failed)
        else:
            status["certificate"] = b64encode(certificate).decode()
        await self.client.update(CERTIFICATE_SIGNING_REQUESTS, changed, subresource="status")


def sign(obj: Object, certificate: Path, key: Path, now: dt.datetime) -> bytes:
    """The certificate in PEM that an approved request gets. Raises InvalidInput for one that its signer does not sign."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    spec = obj["spec"]
    request = request_of(obj)
    usages = list(spec.get("usages") or ())
    why = problem(spec["signerName"], wanted_of(request), usages, spec.get("username") or "")
    if why:
        raise InvalidInput(why)
    authority = x509.load_pem_x509_certificate(certificate.read_bytes())
    private: Any = serialization.load_pem_private_key(key.read_bytes(), None)
    seconds = spec.get("expirationSeconds")
    life = min(max(dt.timedelta(seconds=seconds), DURATION_MIN), DURATION_MAX) if seconds else DURATION_MAX
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(authority.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + life, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False)
    )
    if _KEY_USES & set(usages):  # an empty extension makes a certificate that nobody takes
        builder = builder.add_extension(_key_usage(usages), critical=True)
    purposes = [_PURPOSES[usage] for usage in usages if usage in _PURPOSES]
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in purposes]), critical=False)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        pass
    else:
        builder = builder.add_extension(names.value, critical=names.critical)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


_PURPOSES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


_KEY_USES = frozenset(
    (
        "cert sign",
        "content commitment",
        "crl sign",
        "data encipherment",
        "digital signature",
        "key agreement",
        "key encipherment",
        "signing",
    )
)


def _key_usage(usages: list[str]) -> Any:
    from cryptography import x509

    agreement = "key agreement" in usages
    return x509.KeyUsage(
        digital_signature="digital signature" in usages or "signing" in usages,
        content_commitment="content commitment" in usages,
        key_encipherment="key encipherment" in usages,
        data_encipherment="data encipherment" in usages,
        key_agreement=agreement,
        key_cert_sign="cert sign" in usages,
        crl_sign="crl sign" in usages,
        encipher_only=agreement and "encipher only" in usages,
        decipher_only=agreement and "decipher only" in usages,
    )
