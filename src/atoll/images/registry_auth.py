"""Who we are to a registry: Basic, and Bearer tokens by the distribution token protocol, with refresh tokens.

A registry answers 401 with a challenge; Bearer sends us to a token server with the scopes of what we are about to do. Secrets go to the
registry and to the token server it names, the latter over TLS unless the registry itself is a plain one on this machine; never further.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

from atoll.errors import InvalidInput, Unauthenticated, Unavailable
from atoll.http import Client
from atoll.http.proxy import proxy_for

CLIENT_ID = "atoll"
TOKEN_TIMEOUT_S = 30.0
TOKEN_MAX = 1 << 20  # bytes of a token answer
EXPIRY_S = 60.0  # the protocol's default
EARLY_S = 5.0  # a token this near its end is not used again
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class Credentials:
    """What X-Registry-Auth carries. `identity` is a refresh token, `token` a bearer token to be used as it is."""

    username: str = ""
    password: str = ""
    identity: str = ""
    token: str = ""

    @classmethod
    def from_auth(cls, auth: Mapping[str, Any] | None) -> Credentials:
        """Docker's AuthConfig: username, password, auth (base64 of both), identitytoken, registrytoken. Raises InvalidInput."""
        auth = auth or {}
        username, password = str(auth.get("username") or ""), str(auth.get("password") or "")
        if not username and auth.get("auth"):
            try:
                username, _, password = base64.b64decode(str(auth["auth"]), validate=True).decode().partition(":")
            except ValueError:
                raise InvalidInput("the registry credentials are broken: auth is not base64 of user:password") from None
        return cls(username, password, str(auth.get("identitytoken") or ""), str(auth.get("registrytoken") or ""))

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate header: scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Those we can meet, Bearer before Basic."""
    found = []
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        if scheme.lower() in ("bearer", "basic"):
            parameters = {match[1].lower(): (match[2] if match[2] is not None else match[3]) for match in _PARAMETER.finditer(rest)}
            found.append(Challenge(scheme.lower(), parameters))
    return sorted(found, key=lambda one: one.scheme != "bearer")


class Authorizer:
    """Authorization headers for one registry. `plain`: the registry speaks HTTP without TLS."""

    def __init__(self, credentials: Credentials, *, plain: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials = credentials
        self._plain = plain
        self._clock = clock
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    async def header(self, scopes: tuple[str, ...]) -> str | None:
        """For a request with `scopes` ("repository:library/debian:pull"); None while no challenge has been seen."""
        challenge = self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._credentials.basic() if self._credentials.username else None
        if self._credentials.token:
            return f"Bearer {self._credentials.token}"
        token, expires = self._tokens.get(scopes, ("", 0.0))
        if not token or self._clock() > expires - EARLY_S:
            token, expires = await self._fetch(challenge, scopes)
            self._tokens[scopes] = (token, expires)
        return f"Bearer {token}"

    def challenged(self, headers: Iterable[str], scopes: tuple[str, ...]) -> bool:
        """Takes a 401 in. True where it is worth trying again: a challenge we have not answered yet, or a token that may have ended."""
        known = challenges(headers)
        if not known:
            return False
        first = self._challenge is None
        had = self._tokens.pop(scopes, None) is not None
        self._challenge = known[0]
        if known[0].scheme == "basic":
            return first and bool(self._credentials.username)
        return first or had

    async def _fetch(self, challenge: Challenge, scopes: tuple[str, ...]) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        url = urlsplit(realm)
        if url.scheme not in ("https", "http") or not url.hostname or (url.scheme == "http" and not self._plain):
            raise Unavailable(f"the registry names {realm!r} as its token server, which is no https address: refused")
        query = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
        query += [("scope", scope) for scope in scopes]
        headers: list[tuple[str, str]] = []
        body = b""
        method, target = "GET", url.path or "/"
        if self._credentials.identity:
            method = "POST"
            form = [("grant_type", "refresh_token"), ("refresh_token", self._credentials.identity), ("client_id", CLIENT_ID)]
            body = urlencode([*form, *_joined(query)]).encode()
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        else:
            if self._credentials.username:
                headers.append(("Authorization", self._credentials.basic()))
                query.append(("account", self._credentials.username))
            target += "?" + "&".join(part for part in (url.query, urlencode(query, quote_via=quote)) if part)
        origin = f"{url.scheme}://{url.netloc}"
        async with Client(origin, timeout=TOKEN_TIMEOUT_S, proxy=proxy_for(origin)) as client:
            response = await client.request(method, target, headers, body)
            async with response:
                data = await response.read(TOKEN_MAX)
        if response.status in (401, 403):
            why = "incorrect username or password" if self._credentials.username else "authentication required"
            raise Unauthenticated(f"unauthorized: {why}")
        if response.status != 200:
            raise Unavailable(f"the token server {url.netloc} answered {response.status}")
        return self._parse(data, url.netloc)

    def _parse(self, data: bytes, server: str) -> tuple[str, float]:
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError:
            answer = None
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise Unavailable(f"the token server {server} gave no token")
        lifetime = answer.get("expires_in")
        return token, self._clock() + (float(lifetime) if isinstance(lifetime, int | float) else EXPIRY_S)


def _joined(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A form's scopes are one field, separated by blanks (RFC 6749, 3.3); a query's are many."""
    scopes = " ".join(value for key, value in query if key == "scope")
    return [pair for pair in query if pair[0] != "scope"] + ([("scope", scopes)] if scopes else [])
