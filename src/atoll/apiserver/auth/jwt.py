"""Service-account tokens as signed JWTs (RFC 7519), with the cluster's own key: RS256 or ES256, whichever the key is.

The algorithm is the key's, never the token's word: a token that claims another is refused before its signature is looked at (`alg: none`,
HS256 signed with the public key).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from atoll.errors import InvalidInput, Unauthenticated

TOKEN_MAX = 16 * 1024  # characters; ours have under 2 KB
_P256_BYTES = 32


class TokenSigner:
    """Signs and verifies with one private key in PEM."""

    def __init__(self, pem: bytes) -> None:
        key = serialization.load_pem_private_key(pem, None)
        if isinstance(key, rsa.RSAPrivateKey):
            self.algorithm = "RS256"
        elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
            self.algorithm = "ES256"
        else:
            raise InvalidInput("the service-account key must be RSA or EC P-256")
        self._key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = key
        public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.key_id = _encode(hashlib.sha256(public).digest())

    @classmethod
    def load(cls, path: Path) -> TokenSigner:
        return cls(path.read_bytes())

    def sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key_id}
        signed = f"{_encode(orjson.dumps(header))}.{_encode(orjson.dumps(claims))}"
        return f"{signed}.{_encode(self._signature(signed.encode()))}"

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token this key signed; times and audiences are the caller's to check. Raises Unauthenticated."""
        if len(token) > TOKEN_MAX or token.count(".") != 2:
            raise Unauthenticated("the token is not a JWT")
        signed, _, signature = token.rpartition(".")
        try:
            header, claims = (orjson.loads(_decode(part)) for part in signed.split("."))
            if not isinstance(header, dict) or not isinstance(claims, dict) or header.get("alg") != self.algorithm:
                raise Unauthenticated("the token is of another algorithm than this cluster's key")
            self._check(signed.encode(), _decode(signature))
        except (ValueError, binascii.Error, InvalidSignature) as error:
            raise Unauthenticated("the token was not signed by this cluster") from error
        return claims

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        if isinstance(numbers, rsa.RSAPublicNumbers):
            size = (numbers.n.bit_length() + 7) // 8
            parts = {"kty": "RSA", "n": _encode(numbers.n.to_bytes(size)), "e": _encode(numbers.e.to_bytes(3))}
        else:
            parts = {
                "kty": "EC",
                "crv": "P-256",
                "x": _encode(numbers.x.to_bytes(_P256_BYTES)),
                "y": _encode(numbers.y.to_bytes(_P256_BYTES)),
            }
        return {"keys": [{"use": "sig", "kid": self.key_id, "alg": self.algorithm, **parts}]}

    def _signature(self, text: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self._key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_P256_BYTES) + s.to_bytes(_P256_BYTES)  # RFC 7518, 3.4: raw, not DER

    def _check(self, text: bytes, signature: bytes) -> None:
        public = self._key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
            return
        if len(signature) != 2 * _P256_BYTES:
            raise InvalidSignature
        der = encode_dss_signature(int.from_bytes(signature[:_P256_BYTES]), int.from_bytes(signature[_P256_BYTES:]))
        public.verify(der, text, ec.ECDSA(hashes.SHA256()))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
