"""Requests to one registry, as registry.py makes them.

Every request goes through one place that authenticates, follows redirects (without our credentials once they leave the registry's origin),
and tries again, boundedly, what may pass: 429 and 5xx, Retry-After respected. Plain HTTP is spoken only to this machine's own addresses
and to registries the user declared insecure.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urljoin, urlsplit

import orjson

from atoll.errors import AtollError, Forbidden, InvalidInput, NotFound, Unauthenticated, Unavailable
from atoll.http import Client, ClientResponse, Disconnected, Headers
from atoll.http.proxy import proxy_for
from atoll.images.blobs import DOCUMENT_MAX
from atoll.images.reference import DEFAULT_DOMAIN, Reference
from atoll.images.registry_auth import Authorizer, Credentials

HUB = "registry-1.docker.io"
ATTEMPTS = 5
REDIRECTS_MAX = 5
BACKOFF_S = 0.5  # doubled at each attempt
RETRY_AFTER_MAX_S = 30.0
REQUEST_TIMEOUT_S = 60.0
PING_TIMEOUT_S = 15.0
STALL_S = 60.0  # a transfer that moves no byte for so long is begun again
WRITE_BATCH = 1 << 20  # bytes handed to a thread at a time
CERTIFICATES = Path("/etc/docker/certs.d")  # <registry>/*.crt: Docker's place for a registry's own authority
RETRIED = (408, 429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_DENIED = ("DENIED", "UNAUTHORIZED")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """What the user says about registries.

    `insecure`: hosts ("registry.lan:5000") that may speak plain HTTP or show a certificate nobody vouches for. `mirrors`: addresses asked
    before Docker Hub, as dockerd's registry-mirrors ("https://mirror.lan"), or before another registry ("quay.io=https://mirror.lan").
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> RegistrySettings:
        """ATOLL_INSECURE_REGISTRIES and ATOLL_REGISTRY_MIRRORS, separated by commas. Raises InvalidInput."""
        env = os.environ if environ is None else environ

        def split(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())

        settings = cls(split("ATOLL_INSECURE_REGISTRIES"), split("ATOLL_REGISTRY_MIRRORS"))
        for text in settings.mirrors:
            domain, url = _mirror(text)
            parts = urlsplit(url)
            if not domain or parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
                raise InvalidInput(f"ATOLL_REGISTRY_MIRRORS: {text!r} is neither https://HOST nor REGISTRY=https://HOST")
        return settings

    def mirrors_of(self, domain: str) -> tuple[str, ...]:
        """Where to ask before the registry of that name, in turn."""
        return tuple(url for mirrored, url in map(_mirror, self.mirrors) if mirrored == domain)

    def is_insecure(self, domain: str) -> bool:
        host = urlsplit(f"//{domain}").hostname or ""
        if domain in self.insecure or host in self.insecure or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _mirror(text: str) -> tuple[str, str]:
    domain, equals, url = text.partition("=")
    return (domain, url) if equals and "://" not in domain else (DEFAULT_DOMAIN, text)


class RegistryError(AtollError):
    """A refusal in the registry's own words."""

    def __init__(self, status: int, codes: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.status = status
        self.codes = tuple(codes)


class Session:
    """A session with the registry of one repository. An async context manager.

    Raises, from every method: NotFound, Unauthenticated, Forbidden, Unavailable, RegistryError.
    """

    def __init__(
        self,
        repository: Reference,
        credentials: Credentials,
        settings: RegistrySettings,
        *,
        push: bool = False,
        base: str | None = None,
    ) -> None:
        self.repository = repository
        self._credentials = credentials
        self._insecure = settings.is_insecure(urlsplit(base).netloc if base else repository.domain)
        self.scopes: tuple[str, ...] = (f"repository:{repository.path}:{'pull,push' if push else 'pull'}",)
        self._given_base = base
        self._clients: dict[str, Client] = {}
        self.base = ""
        self._auth = Authorizer(credentials, plain=False)

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()

    # session -------------------------------------------------------------------------------------------------------------------------
    async def _connect(self) -> None:
        """Finds how the registry speaks, and takes its challenge in."""
        domain = HUB if self.repository.domain == DEFAULT_DOMAIN else self.repository.domain
        bases = [self._given_base.rstrip("/")] if self._given_base else [f"https://{domain}"]
        if self._insecure and not self._given_base:
            bases.append(f"http://{domain}")
        failure: Unavailable | None = None
        for base in bases:
            try:
                response = await self._client(base).request("GET", "/v2/", timeout=PING_TIMEOUT_S)
            except Unavailable as error:
                failure = failure if failure and "refused" not in str(error) else error
                continue
            async with response:
                self.base = base
                self._auth = Authorizer(self._credentials, plain=base.startswith("http:"))
                if response.status == 401:
                    self._auth.challenged(response.headers.getall("www-authenticate"), self.scopes)
            return
        raise Unavailable(f'Get "{bases[-1]}/v2/": {_reason(failure, bases[-1])}{_next_step(self.repository)}') from failure

    def _client(self, origin: str) -> Client:
        client = self._clients.get(origin)
        if client is None:
            context = _tls(urlsplit(origin).netloc, insecure=self._insecure) if origin.startswith("https:") else None
            client = self._clients[origin] = Client(
                origin, context, [("User-Agent", "atoll")], timeout=REQUEST_TIMEOUT_S, proxy=proxy_for(origin)
            )
        return client

    async def call(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]] = (),
        body: Callable[[], AsyncIterator[bytes]] | bytes = b"",
        *,
        scopes: tuple[str, ...] | None = None,
        limit: float | None = None,
    ) -> ClientResponse:
        """Sends until something final comes back; the response is any status that is no redirect, no 401 we could meet, nothing passing."""
        scopes = self.scopes if scopes is None else scopes
        absolute = urljoin(self.base, url)
        for attempt in range(ATTEMPTS):
            response = None
            try:
                response = await self.follow(method, absolute, headers, body, scopes, limit)
                if response.status not in RETRIED or attempt == ATTEMPTS - 1:
                    return response
                wait = _retry_after(response.headers, backoff(attempt))
            except (Unavailable, Disconnected):
                if attempt == ATTEMPTS - 1:
                    raise
                wait = backoff(attempt)
            finally:
                if response is not None and response.status in RETRIED and attempt < ATTEMPTS - 1:
                    response.close()
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def follow(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Callable[[], AsyncIterator[bytes]] | bytes,
        scopes: tuple[str, ...],
        limit: float | None,
    ) -> ClientResponse:
        """One attempt: redirects followed, one 401 answered."""
        redirects, challenged = 0, False
        while True:
            parts = urlsplit(url)
            origin = f"{parts.scheme}://{parts.netloc}"
            ours = origin == self.base
            fields = list(headers)
            if ours and (authorization := await self._auth.header(scopes)):
                fields.append(("Authorization", authorization))
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            response = await self._client(origin).request(
                method, target, fields, body if isinstance(body, bytes) else body(), timeout=limit
            )
            if response.status == 401 and ours and not challenged:
                if self._auth.challenged(response.headers.getall("www-authenticate"), scopes):
                    response.close()
                    challenged = True
                    continue
            elif response.status in _MOVED and method in ("GET", "HEAD") and (where := response.headers.get("location")):
                response.close()
                url = urljoin(url, where)
                redirects += 1
                _check_redirect(self.base, url, redirects)
                continue
            return response

    async def check(self) -> None:
        """Raises Unauthenticated where the registry does not take our credentials."""
        self.scopes = ()
        response = await self.call("GET", "/v2/")
        async with response:
            if response.status in (401, 403):
                raise Unauthenticated(f'Get "{self.base}/v2/": unauthorized: incorrect username or password')
            await self.expect(response, 200)

    # answers -------------------------------------------------------------------------------------------------------------------------
    def path(self, kind: str, rest: str) -> str:
        return f"/v2/{self.repository.path}/{kind}/{rest}"

    async def expect(self, response: ClientResponse, *statuses: int) -> None:
        """Raises what a refusal means."""
        if response.status in statuses:
            return
        codes, message = _errors(await response.read(DOCUMENT_MAX), response.status)
        name = self.repository.familiar_name
        if response.status in (401, 403) or any(code in _DENIED for code in codes):
            if self._credentials.username and response.status == 401:
                raise Unauthenticated(f"unauthorized: incorrect username or password for {self.repository.domain}: {message}")
            denied = f"access to {name} denied, repository does not exist or may require 'docker login': {message}"
            raise (Forbidden if self._credentials.username else Unauthenticated)(denied)
        if response.status == 404:
            if "NAME_UNKNOWN" in codes:
                raise NotFound(f"repository {name} not found: {message}")
            raise NotFound(message)
        if response.status == 429:
            raise Unavailable(f"toomanyrequests: {message}")
        if response.status >= 500:
            raise Unavailable(f"{self.base} answered {response.status}: {message}")
        raise RegistryError(response.status, codes, f"{self.base} refused with status {response.status}: {message}")


def backoff(attempt: int) -> float:
    """Seconds before the attempt after number `attempt`."""
    return BACKOFF_S * float(2**attempt)


def _errors(body: bytes, status: int) -> tuple[list[str], str]:
    """The distribution protocol's {"errors": [{code, message}]}, as Docker words it: "manifest unknown: manifest unknown"."""
    try:
        errors = orjson.loads(body)["errors"]
        codes = [str(error["code"]) for error in errors]
        words = [f"{code.lower().replace('_', ' ')}: {error.get('message', '')}" for code, error in zip(codes, errors, strict=True)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return [], f"status {status}"
    return codes, ", ".join(words) or f"status {status}"


def _check_redirect(base: str, url: str, count: int) -> None:
    scheme = urlsplit(url).scheme
    if count > REDIRECTS_MAX:
        raise Unavailable(f"{base} redirects without end")
    if scheme not in ("https", "http") or (scheme == "http" and base.startswith("https:")):
        raise Unavailable(f"{base} redirects to {url}, away from TLS: refused")


def _retry_after(headers: Headers, default: float) -> float:
    """Seconds, as the header has them or as a date (RFC 9110, 10.2.3), within reason."""
    value = headers.get("retry-after") or ""
    if value.isdigit():
        return min(float(value), RETRY_AFTER_MAX_S)
    try:
        wait = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return default
    return min(max(wait, 0.0), RETRY_AFTER_MAX_S)


def _tls(domain: str, *, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    directory = CERTIFICATES / domain
    if directory.is_dir():
        for certificate in sorted(directory.glob("*.crt")):
            context.load_verify_locations(certificate)
        for certificate in sorted(directory.glob("*.cert")):
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(failure: Unavailable | None, base: str) -> str:
    """Why nothing answered, without the address and number the message has or nobody reads."""
    return re.sub(r"\[Errno -?\d+\] ", "", str(failure).removeprefix(f"cannot connect to {base}: "))


def _next_step(repository: Reference) -> str:
    if repository.domain != DEFAULT_DOMAIN:
        return ""
    return (
        ". Docker Hub does not answer. Make a base image from Debian's packages (atoll image bootstrap debian:bookworm), "
        "or name a mirror in ATOLL_REGISTRY_MIRRORS"
    )
