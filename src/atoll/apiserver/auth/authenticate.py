"""From a request to its user: a client certificate the CA signed, a bearer token, or nobody.

A certificate has been verified against the client CA by TLS before it comes here; its CN is the user and its O's the groups. A token that
is presented must be good: there is no falling back to anonymous with a bad one.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from atoll.apiserver.auth.bootstraptokens import BootstrapTokens
from atoll.apiserver.auth.jwks import unverified
from atoll.apiserver.auth.oidc import KeysWanted
from atoll.apiserver.auth.serviceaccounts import ServiceAccountTokens
from atoll.apiserver.auth.settings import AuthenticationSettings
from atoll.apiserver.call import ANONYMOUS, AUTHENTICATED, User
from atoll.apiserver.config import StaticToken
from atoll.apiserver.machinery import statuses
from atoll.errors import Unauthenticated
from atoll.http import Request

if TYPE_CHECKING:
    from atoll.apiserver.auth.frontproxy import FrontProxy

_BEARER = "bearer "


class Authenticator:
    """`tokens` are known from the start; each other part may be missing."""

    def __init__(
        self,
        tokens: Mapping[str, StaticToken],
        accounts: ServiceAccountTokens | None,
        bootstrap: BootstrapTokens | None = None,
        settings: AuthenticationSettings | None = None,
        front_proxy: FrontProxy | None = None,
    ) -> None:
        self._tokens = tokens
        self._accounts = accounts
        self._bootstrap = bootstrap
        self._front_proxy = front_proxy
        self.use(settings or AuthenticationSettings())

    def use(self, settings: AuthenticationSettings) -> None:
        """From now on. What issuers' keys were fetched is fetched again."""
        self._issuers = {issuer.url: issuer for issuer in settings.issuers}
        self._anonymous = settings.anonymous

    def authenticate(self, request: Request) -> User:
        """Raises StatusError 401 for credentials that are not good; KeysWanted when the token's issuer must be asked for its keys first."""
        certificate = request.peer.certificate
        if certificate:
            return _certified(certificate) if self._front_proxy is None else self._beyond_proxy(self._front_proxy, certificate, request)
        header = request.headers.get("authorization")
        if not header:
            return self._nobody(request)
        if header[: len(_BEARER)].lower() != _BEARER:
            raise statuses.unauthorized()
        try:
            return self.token(header[len(_BEARER) :].strip())[0]
        except KeysWanted:
            raise
        except Unauthenticated:
            raise statuses.unauthorized() from None

    def token(self, token: str, audiences: Sequence[str] | None = None) -> tuple[User, list[str]]:
        """The user of a bearer token and the audiences it is good for. Raises Unauthenticated."""
        for known, static in self._tokens.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return User(static.user, (*static.groups, AUTHENTICATED)), self._own(audiences)
        if self._bootstrap is not None and self._bootstrap.knows(token):
            return self._bootstrap.authenticate(token), self._own(audiences)
        issuer = self._issuers.get(str(unverified(token)[1].get("iss"))) if self._issuers else None
        if issuer is not None:
            return issuer.authenticate(token), self._own(audiences)
        if self._accounts is None:
            raise Unauthenticated("the token is not known")
        return self._accounts.authenticate(token, audiences)

    def _own(self, audiences: Sequence[str] | None) -> list[str]:
        """Tokens that name no audience of ours are good for this server alone. Raises Unauthenticated where others are asked for."""
        if not audiences:
            return []
        own = [self._accounts.issuer] if self._accounts is not None else []
        good = [audience for audience in audiences if audience in own]
        if not good:
            raise Unauthenticated("the token is for another audience")
        return good

    def _nobody(self, request: Request) -> User:
        if self._anonymous is not None and request.path not in self._anonymous:
            raise statuses.unauthorized()
        return ANONYMOUS

    def _beyond_proxy(self, proxy: FrontProxy, certificate: bytes, request: Request) -> User:
        """A certificate of the proxy's authority speaks for others, and never for itself."""
        is_proxy = proxy.is_proxy(certificate)
        if is_proxy is None:
            return _certified(certificate)
        user = proxy.user(request) if is_proxy else None
        if user is None:
            raise statuses.unauthorized()
        return user


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
