"""Users of an OpenID Connect issuer: its keys found by discovery, its tokens verified, their claims mapped to a user.

Discovery and keys are fetched when the first token of the issuer comes, again when a token names a key that is not known (at most every
few seconds), and when they are old. The mapping is that of AuthenticationConfiguration (KEP-3331): plain claims with a prefix, or CEL.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from atoll.apiserver.auth.jwks import KeySet, unverified
from atoll.apiserver.call import AUTHENTICATED, User
from atoll.errors import AtollError, InvalidInput, Unauthenticated, Unavailable
from atoll.http import Client

DOCUMENT_MAX = 1024 * 1024
FETCH_S = 10.0
AGAIN_S = 5.0  # between two fetches that unknown keys ask for
FRESH_S = 3_600.0
LEEWAY_S = 10.0
VERIFIED_MAX = 4_096
Claims = Mapping[str, Any]


class KeysWanted(Unauthenticated):
    """A token of an issuer whose keys must be fetched first."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(f"the keys of {issuer.url} are not known yet")
        self.issuer = issuer


class Issuer:
    """`spec` is one entry of AuthenticationConfiguration's `jwt`. Raises InvalidInput for one that says nothing usable."""

    def __init__(self, spec: Mapping[str, Any], clock: Callable[[], float]) -> None:
        issuer = spec.get("issuer") or {}
        self.url = str(issuer.get("url") or "")
        self._discovery = str(issuer.get("discoveryURL") or f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        self._audiences = frozenset(issuer.get("audiences") or ())
        self._authority = str(issuer.get("certificateAuthority") or "")
        if urlsplit(self.url).scheme != "https" or urlsplit(self._discovery).scheme != "https":
            raise InvalidInput(f"jwt issuer {self.url!r}: its URL must be an https one")
        if not self._audiences:
            raise InvalidInput(f"jwt issuer {self.url}: issuer.audiences must not be empty")
        self._mapping = _Mapping(self.url, spec)
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched = float("-inf")
        self._verified: dict[str, Claims] = {}

    def authenticate(self, token: str) -> User:
        """Raises Unauthenticated; KeysWanted when `fetch` may help."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = claims
        now = self._clock()
        if not _number(claims.get("nbf", claims.get("iat", 0))) - LEEWAY_S <= now < _number(claims.get("exp")):
            raise Unauthenticated("oidc: verify token: oidc: token is expired")
        return self._mapping.user(claims)

    def _verify(self, token: str) -> Claims:
        header, claims = unverified(token)
        if claims.get("iss") != self.url:
            raise Unauthenticated("the token is of another issuer")
        stale = self._clock() - self._fetched
        if self._keys is None or stale > FRESH_S or (stale > AGAIN_S and not self._keys.knows(str(header.get("kid") or ""))):
            if stale > AGAIN_S:
                raise KeysWanted(self)
            raise Unauthenticated(f"the keys of {self.url} could not be fetched")
        claims = self._keys.verify(token)
        audiences = claims.get("aud")
        if not self._audiences & set(audiences if isinstance(audiences, list) else [audiences]):
            raise Unauthenticated(f"oidc: verify token: oidc: expected audience in {sorted(self._audiences)} got {audiences}")
        return claims

    async def fetch(self) -> None:
        """Discovery, then the keys. Raises Unauthenticated when they cannot be had."""
        self._fetched = self._clock()
        try:
            context = ssl.create_default_context(cadata=self._authority or None)
            told = orjson.loads(await _get(self._discovery, context))
            if told.get("issuer") != self.url:
                raise InvalidInput(f"the issuer calls itself {told.get('issuer')!r}")
            self._keys = KeySet.parse(await _get(str(told["jwks_uri"]), context))
        except (AtollError, OSError, ValueError, KeyError, TypeError, AttributeError, TimeoutError) as error:
            raise Unauthenticated(f"the keys of {self.url} could not be fetched: {error}") from None
        self._verified.clear()


async def _get(url: str, context: ssl.SSLContext) -> bytes:
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise InvalidInput(f"{url} is not an https URL")
    async with Client(f"https://{parts.netloc}", context, timeout=FETCH_S) as client:
        answer = await client.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        body = await answer.read(DOCUMENT_MAX)
    if answer.status != 200:
        raise Unavailable(f"{url} answered {answer.status}")
    return body


class _Mapping:
    """Claims to a user."""

    def __init__(self, url: str, spec: Mapping[str, Any]) -> None:
        mappings = spec.get("claimMappings") or {}
        self._username = mappings.get("username") or {}
        self._groups = mappings.get("groups") or {}
        self._uid = mappings.get("uid") or {}
        self._extra: Sequence[Mapping[str, Any]] = mappings.get("extra") or ()
        self._claim_rules: Sequence[Mapping[str, Any]] = spec.get("claimValidationRules") or ()
        self._user_rules: Sequence[Mapping[str, Any]] = spec.get("userValidationRules") or ()
        self._programs: dict[str, Any] = {}
        self._environments: dict[str, Any] = {}
        if not self._username.get("claim") and not self._username.get("expression"):
            raise InvalidInput(f"jwt issuer {url}: claimMappings.username needs a claim or an expression")
        for rule in (self._username, self._groups):
            if rule.get("claim") and rule.get("prefix") is None:
                raise InvalidInput(f"jwt issuer {url}: claimMappings with a claim need a prefix, which may be empty")
        texts = [("claims", each.get("expression")) for each in (self._username, self._groups, self._uid, *self._claim_rules)]
        texts += [("claims", each.get("valueExpression")) for each in self._extra]
        texts += [("user", each.get("expression")) for each in self._user_rules]
        for variable, text in texts:
            if text:
                self._programs[text] = self._compiled(text, variable)

    def _compiled(self, text: str, variable: str) -> Any:
        from atoll.apiserver.customresources.cel import Expression, environment, library

        if variable not in self._environments:
            self._environments[variable] = environment({variable: library().Type.DYN})
        return Expression(text, {}, self._environments[variable])

    def user(self, claims: Claims) -> User:
        """Raises Unauthenticated."""
        for rule in self._claim_rules:
            self._check_claim(rule, claims)
        name = self._mapped(self._username, claims)
        if not isinstance(name, str) or not name or claims.get(self._username.get("claim") or "", name) == "":
            raise Unauthenticated(f"oidc: parse username claims {self._username.get('claim')!r}: claim not present")
        if self._username.get("claim") == "email" and claims.get("email_verified", True) is not True:
            raise Unauthenticated("oidc: email not verified")
        listed = self._mapped(self._groups, claims)
        groups = [listed] if isinstance(listed, str) else listed or []
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            raise Unauthenticated(f"oidc: parse groups claim {self._groups.get('claim')!r}: not a string or list of strings")
        extra = {str(each.get("key")): self._values(each, claims) for each in self._extra}
        jti = claims.get("jti")
        if isinstance(jti, str) and jti:
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={jti}",)
        uid = self._mapped(self._uid, claims) or ""
        user = User(name, (*groups, AUTHENTICATED), str(uid), {key: values for key, values in extra.items() if values})
        for rule in self._user_rules:
            shown = {
                "username": name,
                "uid": user.uid,
                "groups": groups,
                "extra": {key: list(values) for key, values in user.extra.items()},
            }
            if self._evaluated(rule["expression"], {"user": shown}) is not True:
                raise Unauthenticated(f"oidc: user validation failed: {rule.get('message') or rule['expression']}")
        return user

    def _check_claim(self, rule: Mapping[str, Any], claims: Claims) -> None:
        if rule.get("claim"):
            if str(claims.get(rule["claim"])) != str(rule.get("requiredValue") or ""):
                raise Unauthenticated(f"oidc: required claim {rule['claim']} value does not match")
        elif self._evaluated(rule["expression"], {"claims": dict(claims)}) is not True:
            raise Unauthenticated(f"oidc: claim validation failed: {rule.get('message') or rule['expression']}")

    def _mapped(self, rule: Mapping[str, Any], claims: Claims) -> Any:
        if rule.get("expression"):
            return self._evaluated(rule["expression"], {"claims": dict(claims)})
        value = claims.get(rule["claim"]) if rule.get("claim") else None
        prefix = rule.get("prefix") or ""
        if isinstance(value, str):
            return prefix + value
        return [prefix + each if isinstance(each, str) else each for each in value] if isinstance(value, list) else value

    def _values(self, rule: Mapping[str, Any], claims: Claims) -> tuple[str, ...]:
        value = self._evaluated(rule["valueExpression"], {"claims": dict(claims)})
        return tuple(str(each) for each in value) if isinstance(value, list) else (str(value),) if value else ()

    def _evaluated(self, text: str, values: dict[str, Any]) -> Any:
        try:
            return self._programs[text].evaluate(values)
        except InvalidInput as error:
            raise Unauthenticated(f"oidc: {error}") from None


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
