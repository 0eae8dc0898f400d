"""Users that a proxy before the server vouches for, by request headers: what aggregated API servers are told by theirs.

The proxy shows a certificate of its own authority. Only then are the headers looked at; from anybody else they say nothing.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from atoll.apiserver.call import AUTHENTICATED, UNAUTHENTICATED, User
from atoll.http import Request

USER, UID, GROUP, EXTRA = "X-Remote-User", "X-Remote-Uid", "X-Remote-Group", "X-Remote-Extra-"


class FrontProxy:
    """`names` are the common names a proxy may have; any where there are none."""

    def __init__(self, authority: Path, names: tuple[str, ...] = ()) -> None:
        self._authority = x509.load_pem_x509_certificate(authority.read_bytes())
        self._names = names
        self._known: dict[bytes, bool | None] = {}

    def is_proxy(self, der: bytes) -> bool | None:
        """Whether a certificate is that of a proxy; None when another authority has signed it."""
        if der not in self._known:
            if len(self._known) >= 1_024:
                self._known.clear()
            self._known[der] = self._judge(x509.load_der_x509_certificate(der))
        return self._known[der]

    def _judge(self, certificate: x509.Certificate) -> bool | None:
        try:
            certificate.verify_directly_issued_by(self._authority)
        except (ValueError, TypeError, InvalidSignature):
            return None
        names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return not self._names or bool(set(names) & set(self._names))

    def user(self, request: Request) -> User | None:
        """Who the proxy says it is; None where it names nobody."""
        headers = request.headers
        name = headers.get(USER)
        if not name:
            return None
        extra: dict[str, list[str]] = {}
        for header, value in headers.items():
            if header.lower().startswith(EXTRA.lower()):
                extra.setdefault(unquote(header[len(EXTRA) :].lower()), []).append(value)
        groups = headers.getall(GROUP)
        if AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
            groups.append(AUTHENTICATED)
        return User(name, tuple(groups), headers.get(UID) or "", {key: tuple(values) for key, values in extra.items()})
