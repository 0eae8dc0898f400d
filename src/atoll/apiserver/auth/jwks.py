"""Public keys of other issuers (JSON Web Key Sets, RFC 7517) and the signatures made with them (RFC 7515, 7518).

The algorithm must be one that its key can make: a key of another kind, a symmetric one, or `none` verifies nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from atoll.errors import InvalidInput, Unauthenticated

TOKEN_MAX = 16 * 1024  # characters
RSA_BITS_MIN = 2048  # RFC 7518, 3.3
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
_CURVES: dict[str, tuple[type[ec.EllipticCurve], str, int]] = {
    "P-256": (ec.SECP256R1, "ES256", 32),
    "P-384": (ec.SECP384R1, "ES384", 48),
    "P-521": (ec.SECP521R1, "ES512", 66),
}
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class KeySet:
    """Keys by their ids; those of kinds that are not known here are passed over."""

    def __init__(self, keys: Iterable[tuple[str, PublicKey]]) -> None:
        self._keys = list(keys)

    @classmethod
    def parse(cls, document: bytes) -> KeySet:
        """Raises InvalidInput for what is no key set."""
        try:
            listed = orjson.loads(document)["keys"]
            return cls([(str(key.get("kid") or ""), made) for key in listed if (made := _key(key)) is not None])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(f"the document is no JSON Web Key Set: {error}") from None

    def knows(self, key_id: str) -> bool:
        return any(kid == key_id for kid, _ in self._keys)

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of the keys has signed. Raises Unauthenticated."""
        header, claims = unverified(token)
        signed, _, signature = token.rpartition(".")
        key_id, algorithm = header.get("kid"), str(header.get("alg"))
        try:
            raw = decode(signature)
        except (ValueError, binascii.Error):
            raise Unauthenticated("the token's signature cannot be read") from None
        for kid, key in self._keys:
            if (not key_id or kid == key_id) and _is_signed(key, algorithm, signed.encode(), raw):
                return claims
        raise Unauthenticated("failed to verify id token signature")


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as the token says them itself. Raises Unauthenticated for what is no JWT."""
    if len(token) > TOKEN_MAX or token.count(".") != 2:
        raise Unauthenticated("the token is not a JWT")
    try:
        header, claims = (orjson.loads(decode(part)) for part in token.split(".")[:2])
    except (ValueError, binascii.Error):
        raise Unauthenticated("the token is not a JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise Unauthenticated("the token is not a JWT")
    return header, claims


def decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _key(key: Mapping[str, Any]) -> PublicKey | None:
    if key.get("use") not in (None, "sig"):
        return None
    if key.get("kty") == "RSA":
        made = rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key()
        return made if made.key_size >= RSA_BITS_MIN else None
    if key.get("kty") == "EC" and key.get("crv") in _CURVES:
        return ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), _CURVES[key["crv"]][0]()).public_key()
    return None


def _number(text: str) -> int:
    return int.from_bytes(decode(text))


def _is_signed(key: PublicKey, algorithm: str, text: bytes, signature: bytes) -> bool:
    digest = _HASHES.get(algorithm[2:])
    try:
        if isinstance(key, rsa.RSAPublicKey) and digest and algorithm[:2] == "RS":
            key.verify(signature, text, padding.PKCS1v15(), digest())
        elif isinstance(key, rsa.RSAPublicKey) and digest and algorithm[:2] == "PS":
            key.verify(signature, text, padding.PSS(padding.MGF1(digest()), digest().digest_size), digest())
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest and algorithm[:2] == "ES":
            size = next((size for curve, name, size in _CURVES.values() if name == algorithm and isinstance(key.curve, curve)), 0)
            if not size or len(signature) != 2 * size:
                return False
            raw = encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
            key.verify(raw, text, ec.ECDSA(digest()))
        else:
            return False
    except InvalidSignature:
        return False
    return True
