"""From a request to its user: a client certificate the CA signed, a bearer token, or nobody.

A certificate has been verified against the client CA by TLS before it comes here; its CN is the user and its O's the groups. A token that
is presented must be good: there is no falling back to anonymous with a bad one.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache

from atoll.apiserver.auth.bootstraptokens import BootstrapTokens
from atoll.apiserver.auth.serviceaccounts import ServiceAccountTokens
from atoll.apiserver.call import ANONYMOUS, AUTHENTICATED, User
from atoll.apiserver.config import StaticToken
from atoll.apiserver.machinery import statuses
from atoll.errors import Unauthenticated
from atoll.http import Request

_BEARER = "bearer "


class Authenticator:
    def __init__(
        self, tokens: Mapping[str, StaticToken], accounts: ServiceAccountTokens | None, bootstrap: BootstrapTokens | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._tokens = tokens
        self._accounts = accounts

    def authenticate(self, request: Request) -> User:
        """Raises StatusError 401 for credentials that are not good."""
        certificate = request.peer.certificate
        if certificate:
            return _certified(certificate)
        header = request.headers.get("authorization")
        if not header:
            return ANONYMOUS
        if header[: len(_BEARER)].lower() != _BEARER:
            raise statuses.unauthorized()
        try:
            return self.token(header[len(_BEARER) :].strip())[0]
        except Unauthenticated:
            raise statuses.unauthorized() from None

    def token(self, token: str, audiences: Sequence[str] | None = None) -> tuple[User, list[str]]:
        """The user of a bearer token and the audiences it is good for. Raises Unauthenticated."""
        for known, static in self._tokens.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return User(static.user, (*static.groups, AUTHENTICATED)), list(audiences or ())
        if self._bootstrap is not None and self._bootstrap.knows(token):
            return self._bootstrap.authenticate(token), list(audiences or ())
        if self._accounts is None:
            raise Unauthenticated("the token is not known")
        return self._accounts.authenticate(token, audiences)


@lru_cache(maxsize=1_024)
def _certified(der: bytes) -> User:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        subject = x509.load_der_x509_certificate(der).subject
    except ValueError:
        raise statuses.unauthorized() from None
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if not names or not names[-1]:
        raise statuses.unauthorized()
    return User(names[-1], (*groups, AUTHENTICATED))
