"""What the controllers of certificate requests read from them."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING

from atoll.client.objects import Object, condition_of
from atoll.client.signers import load_request
from atoll.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography import x509


def request_of(obj: Object) -> x509.CertificateSigningRequest:
    """Raises InvalidInput."""
    try:
        pem = b64decode(obj["spec"].get("request") or "", validate=True)
    except binascii.Error:
        raise InvalidInput("the certificate request is not base64") from None
    return load_request(pem)


def is_decided(obj: Object) -> bool:
    return bool(condition_of(obj, "Approved") or condition_of(obj, "Denied"))
