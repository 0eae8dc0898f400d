"""Certificate requests (certificates.k8s.io) as both the API server's gate and the signing controllers read them: the PEM's content, the
four signers of Kubernetes' own, and what each of them asks of a request ("Certificate Signing Requests", Kubernetes signers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atoll.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography import x509

API_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
SIGNERS = (API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"
_BASE = {"digital signature", "key encipherment"}
_NODE_CLIENT = ({"digital signature", "key encipherment", "client auth"}, {"digital signature", "client auth"})
_NODE_SERVING = ({"digital signature", "key encipherment", "server auth"}, {"digital signature", "server auth"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PKCS#10 request asks to have certified."""

    common_name: str
    organisations: tuple[str, ...]
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]


def load_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Raises InvalidInput for what is no request in PEM, or one whose signature does not fit its key."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem and b"-----BEGIN NEW CERTIFICATE REQUEST-----" not in pem:
        raise InvalidInput("PEM block type must be CERTIFICATE REQUEST")
    try:
        found = x509.load_pem_x509_csr(pem)
        is_signed = found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"the certificate request cannot be read: {error}") from None
    if not is_signed:
        raise InvalidInput("the certificate request is not signed by its own key")
    return found


def wanted_of(request: x509.CertificateSigningRequest) -> Wanted:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    def names(oid: x509.ObjectIdentifier) -> tuple[str, ...]:
        return tuple(str(attribute.value) for attribute in request.subject.get_attributes_for_oid(oid))

    try:
        alternatives: Any = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = None

    def others(kind: Any) -> tuple[str, ...]:
        return tuple(str(value) for value in alternatives.get_values_for_type(kind)) if alternatives is not None else ()

    common = names(NameOID.COMMON_NAME)
    return Wanted(
        common[-1] if common else "",
        names(NameOID.ORGANIZATION_NAME),
        others(x509.DNSName),
        others(x509.IPAddress),
        others(x509.RFC822Name),
        others(x509.UniformResourceIdentifier),
    )


def problem(signer: str, wanted: Wanted, usages: Iterable[str], requestor: str) -> str:
    """Why a signer of Kubernetes' own does not sign this; "" when it does."""
    asked = set(usages)
    if signer == KUBELET_CLIENT:
        return _node_subject(wanted) or _no_alternatives(wanted, addresses=False) or _usages(asked, _NODE_CLIENT)
    if signer == KUBELET_SERVING:
        if requestor != wanted.common_name:
            return f"subject common name {wanted.common_name!r} is not the requestor's name {requestor!r}"
        if not wanted.dns_names and not wanted.addresses:
            return "DNS or IP subjectAltName is required"
        return _node_subject(wanted) or _no_alternatives(wanted, addresses=True) or _usages(asked, _NODE_SERVING)
    if signer == API_CLIENT and ("client auth" not in asked or asked - _BASE - {"client auth"}):
        return f"usages did not match {_shown(_BASE | {'client auth'})}"
    return ""


def is_self(wanted: Wanted, spec: Mapping[str, Any]) -> bool:
    """Whether a node asks for a certificate of its own name."""
    return bool(wanted.common_name == spec.get("username"))


def _node_subject(wanted: Wanted) -> str:
    if wanted.organisations != (NODES_GROUP,):
        return "subject organization is not system:nodes"
    return "" if wanted.common_name.startswith(NODE_PREFIX) else "subject common name does not begin with system:node:"


def _no_alternatives(wanted: Wanted, *, addresses: bool) -> str:
    refused = [("email", wanted.emails), ("URI", wanted.uris)]
    if not addresses:
        refused = [("DNS", wanted.dns_names), ("email", wanted.emails), ("IP", wanted.addresses), ("URI", wanted.uris)]
    return next((f"{kind} subjectAltNames are not allowed" for kind, values in refused if values), "")


def _usages(asked: set[str], allowed: tuple[set[str], ...]) -> str:
    return "" if asked in allowed else f"usages did not match {_shown(allowed[0])}"


def _shown(usages: set[str]) -> str:
    return f"[{', '.join(sorted(usages))}]"
