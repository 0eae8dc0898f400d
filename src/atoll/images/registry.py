"""One registry over the OCI distribution protocol (distribution-spec 1.1): manifests and blobs in and out.

Every request goes through one place that authenticates, follows redirects (without our credentials once they leave the registry's origin),
and tries again, boundedly, what may pass: 429 and 5xx, Retry-After respected. Plain HTTP is spoken only to this machine's own addresses
and to registries the user declared insecure.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import orjson

from atoll.errors import AtollError, DigestMismatch, Forbidden, InvalidInput, NotFound, Unauthenticated, Unavailable
from atoll.http import Client, ClientResponse, Disconnected, Headers
from atoll.images.blobs import DOCUMENT_MAX, BlobWriter
from atoll.images.manifest import ACCEPT
from atoll.images.model import Descriptor, sha256
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
_AGAIN = (408, 429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_DENIED = ("DENIED", "UNAUTHORIZED")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """What the user says about registries.

    `insecure`: hosts ("registry.lan:5000") that may speak plain HTTP or show a certificate nobody vouches for. `mirrors`: addresses asked
    before Docker Hub ("https://mirror.lan").
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> RegistrySettings:
        """ATOLL_INSECURE_REGISTRIES and ATOLL_REGISTRY_MIRRORS, separated by commas."""
        env = os.environ if environ is None else environ

        def split(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())

        return cls(split("ATOLL_INSECURE_REGISTRIES"), split("ATOLL_REGISTRY_MIRRORS"))

    def is_insecure(self, domain: str) -> bool:
        host = urlsplit(f"//{domain}").hostname or ""
        if domain in self.insecure or host in self.insecure or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


class Fetched(NamedTuple):
    """A manifest as it came: its descriptor, bytes verified against the digest."""

    descriptor: Descriptor
    data: bytes


class RegistryError(AtollError):
    """A refusal in the registry's own words."""

    def __init__(self, status: int, codes: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.status = status
        self.codes = tuple(codes)


class Registry:
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
        self._repository = repository
        self._credentials = credentials
        self._insecure = settings.is_insecure(repository.domain)
        self._scopes: tuple[str, ...] = (f"repository:{repository.path}:{'pull,push' if push else 'pull'}",)
        self._given_base = base
        self._clients: dict[str, Client] = {}
        self._base = ""
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
        domain = HUB if self._repository.domain == DEFAULT_DOMAIN else self._repository.domain
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
                self._base = base
                self._auth = Authorizer(self._credentials, plain=base.startswith("http:"))
                if response.status == 401:
                    self._auth.challenged(response.headers.getall("www-authenticate"), self._scopes)
            return
        raise Unavailable(f'Get "{bases[-1]}/v2/": {failure}{_next_step(self._repository)}') from failure

    def _client(self, origin: str) -> Client:
        client = self._clients.get(origin)
        if client is None:
            context = _tls(urlsplit(origin).netloc, insecure=self._insecure) if origin.startswith("https:") else None
            client = self._clients[origin] = Client(origin, context, [("User-Agent", "atoll")], timeout=REQUEST_TIMEOUT_S)
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
        scopes = self._scopes if scopes is None else scopes
        absolute = urljoin(self._base, url)
        for attempt in range(ATTEMPTS):
            response = None
            try:
                response = await self._follow(method, absolute, headers, body, scopes, limit)
                if response.status not in _AGAIN or attempt == ATTEMPTS - 1:
                    return response
                wait = _retry_after(response.headers, BACKOFF_S * 2**attempt)
            except (Unavailable, Disconnected):
                if attempt == ATTEMPTS - 1:
                    raise
                wait = BACKOFF_S * 2**attempt
            finally:
                if response is not None and response.status in _AGAIN and attempt < ATTEMPTS - 1:
                    response.close()
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _follow(
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
            ours = origin == self._base
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
                _check_redirect(self._base, url, redirects)
                continue
            return response

    async def check(self) -> None:
        """Raises Unauthenticated where the registry does not take our credentials."""
        self._scopes = ()
        response = await self.call("GET", "/v2/")
        async with response:
            if response.status in (401, 403):
                raise Unauthenticated(f'Get "{self._base}/v2/": unauthorized: incorrect username or password')
            await self._expect(response, 200)

    # manifests -----------------------------------------------------------------------------------------------------------------------
    async def manifest(self, tag_or_digest: str) -> Fetched:
        """Raises DigestMismatch where the content is not the digest asked for, or not the one the registry claims."""
        response = await self.call("GET", self._path("manifests", tag_or_digest), [("Accept", ", ".join(ACCEPT))])
        async with response:
            await self._expect(response, 200)
            data = await response.read(DOCUMENT_MAX)
        digest = sha256(data)
        wanted = tag_or_digest if ":" in tag_or_digest else response.headers.get("docker-content-digest", digest)
        if wanted and wanted.startswith("sha256:") and wanted != digest:
            raise DigestMismatch(f"manifest {wanted} of {self._repository.familiar_name} is in truth {digest}: refused")
        return Fetched(Descriptor(response.headers.get("content-type") or "", digest, len(data)), data)

    async def put_manifest(self, tag_or_digest: str, media_type: str, data: bytes) -> None:
        response = await self.call("PUT", self._path("manifests", tag_or_digest), [("Content-Type", media_type)], data)
        async with response:
            await self._expect(response, 201, 200, 202)

    # blobs ---------------------------------------------------------------------------------------------------------------------------
    async def fetch_blob(self, blob: Descriptor, writer: BlobWriter, progress: Callable[[int], None]) -> None:
        """Fills `writer`, going on by Range where a transfer breaks off; `progress` gets the bytes so far.

        Raises DigestMismatch for more bytes than the descriptor says.
        """
        for attempt in range(ATTEMPTS):
            at = writer.size
            fields = [("Range", f"bytes={at}-")] if at else []
            response = await self.call("GET", self._path("blobs", blob.digest), fields)
            try:
                async with response:
                    await self._expect(response, 200, 206)
                    if at and response.status == 200:
                        writer.restart()
                    elif response.status == 206:
                        _check_range(response.headers, at)
                    await _receive(response, blob, writer, progress)
                if writer.size >= blob.size:
                    return
            except (Disconnected, TimeoutError):
                if attempt == ATTEMPTS - 1:
                    break
            if writer.size == at:
                await asyncio.sleep(BACKOFF_S * 2**attempt)
        raise Unavailable(f"{self._base} broke off layer {blob.digest} {ATTEMPTS} times, at byte {writer.size} of {blob.size}")

    async def document(self, pointer: Descriptor) -> bytes:
        """A small blob, verified."""
        if pointer.size > DOCUMENT_MAX:
            raise InvalidInput(f"{pointer.digest} is a document of {pointer.size} bytes: too large")
        response = await self.call("GET", self._path("blobs", pointer.digest))
        async with response:
            await self._expect(response, 200)
            data = await response.read(DOCUMENT_MAX)
        if sha256(data) != pointer.digest or len(data) != pointer.size:
            raise DigestMismatch(f"content of {pointer.digest} is in truth {sha256(data)}: refused")
        return data

    async def has_blob(self, digest: str) -> bool:
        response = await self.call("HEAD", self._path("blobs", digest))
        async with response:
            if response.status == 404:
                return False
            await self._expect(response, 200)
            return True

    async def mount_blob(self, digest: str, source: str) -> bool:
        """Asks the registry to take the blob from its repository `source`; False where it will not."""
        scopes = (*self._scopes, f"repository:{source}:pull")
        response = await self.call("POST", self._path("blobs", f"uploads/?mount={digest}&from={source}"), scopes=scopes)
        async with response:
            return response.status == 201

    async def put_blob(self, blob: Descriptor, chunks: Callable[[], AsyncIterator[bytes]], progress: Callable[[int], None]) -> None:
        """Uploads in one piece, from the start again where it fails."""
        for attempt in range(ATTEMPTS):
            response = await self.call("POST", self._path("blobs", "uploads/"))
            async with response:
                await self._expect(response, 202)
                location = response.headers.get("location")
            if not location:
                raise Unavailable(f"{self._base} gave no place to upload to")
            url = urljoin(self._base, location)
            url += f"{'&' if urlsplit(url).query else '?'}digest={blob.digest}"
            try:
                await self._upload(url, blob, chunks, progress)
                return
            except (Unavailable, Disconnected, TimeoutError) as error:
                if attempt == ATTEMPTS - 1:
                    raise Unavailable(f"{self._base} took no upload of layer {blob.digest}: {error or 'it stalled'}") from error
            await asyncio.sleep(BACKOFF_S * 2**attempt)

    async def _upload(
        self, url: str, blob: Descriptor, chunks: Callable[[], AsyncIterator[bytes]], progress: Callable[[int], None]
    ) -> None:
        fields = [("Content-Type", "application/octet-stream"), ("Content-Length", str(blob.size))]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(STALL_S) as watchdog:

            async def watched() -> AsyncIterator[bytes]:
                sent = 0
                async for chunk in chunks():
                    yield chunk
                    sent += len(chunk)
                    watchdog.reschedule(loop.time() + STALL_S)
                    progress(sent)

            response = await self._follow("PUT", url, fields, watched, self._scopes, 0)
            async with response:
                if response.status in _AGAIN:
                    raise Unavailable(f"status {response.status}")
                await self._expect(response, 201)

    # answers -------------------------------------------------------------------------------------------------------------------------
    def _path(self, kind: str, rest: str) -> str:
        return f"/v2/{self._repository.path}/{kind}/{rest}"

    async def _expect(self, response: ClientResponse, *statuses: int) -> None:
        """Raises what a refusal means."""
        if response.status in statuses:
            return
        codes, message = _errors(await response.read(DOCUMENT_MAX), response.status)
        name = self._repository.familiar_name
        if response.status in (401, 403) or any(code in _DENIED for code in codes):
            if self._credentials.username and response.status == 401:
                raise Unauthenticated(f"unauthorized: incorrect username or password for {self._repository.domain}: {message}")
            denied = f"access to {name} denied, repository does not exist or may require 'docker login': {message}"
            raise (Forbidden if self._credentials.username else Unauthenticated)(denied)
        if response.status == 404:
            if "NAME_UNKNOWN" in codes:
                raise NotFound(f"repository {name} not found: {message}")
            raise NotFound(message)
        if response.status == 429:
            raise Unavailable(f"toomanyrequests: {message}")
        if response.status >= 500:
            raise Unavailable(f"{self._base} answered {response.status}: {message}")
        raise RegistryError(response.status, codes, f"{self._base} refused with status {response.status}: {message}")


async def check_login(auth: Mapping[str, Any], settings: RegistrySettings) -> dict[str, str]:
    """Asks the registry of auth["serveraddress"] whether it takes the credentials: {"Status", "IdentityToken"}.

    Raises Unauthenticated, Unavailable.
    """
    server = str(auth.get("serveraddress") or DEFAULT_DOMAIN)
    host = urlsplit(server if "://" in server else f"//{server}").netloc
    domain = DEFAULT_DOMAIN if host in ("", "index.docker.io", HUB) else host
    async with Registry(Reference(domain, "login"), Credentials.from_auth(auth), settings) as registry:
        await registry.check()
    return {"Status": "Login Succeeded", "IdentityToken": ""}


def _errors(body: bytes, status: int) -> tuple[list[str], str]:
    """The distribution protocol's {"errors": [{code, message}]}, as Docker words it: "manifest unknown: manifest unknown"."""
    try:
        errors = orjson.loads(body)["errors"]
        codes = [str(error["code"]) for error in errors]
        words = [f"{code.lower().replace('_', ' ')}: {error.get('message', '')}" for code, error in zip(codes, errors, strict=True)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return [], f"status {status}"
    return codes, ", ".join(words) or f"status {status}"


async def _receive(response: ClientResponse, blob: Descriptor, writer: BlobWriter, progress: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    batch = bytearray()
    async with asyncio.timeout(STALL_S) as watchdog:
        try:
            async for piece in response:
                watchdog.reschedule(loop.time() + STALL_S)
                batch += piece
                if writer.size + len(batch) > blob.size:
                    raise DigestMismatch(f"content of {blob.digest} has more than the {blob.size} bytes its descriptor says: refused")
                if len(batch) >= WRITE_BATCH:
                    await asyncio.to_thread(writer.write, bytes(batch))
                    batch.clear()
                    progress(writer.size)
        finally:
            # What has arrived counts, so that Range can go on from there.
            if batch and writer.size + len(batch) <= blob.size:
                writer.write(bytes(batch))
            progress(writer.size)


def _check_range(headers: Headers, at: int) -> None:
    if not (headers.get("content-range") or "").startswith(f"bytes {at}-"):
        raise Unavailable("the registry went on at another byte than it was asked for")


def _check_redirect(base: str, url: str, count: int) -> None:
    scheme = urlsplit(url).scheme
    if count > REDIRECTS_MAX:
        raise Unavailable(f"{base} redirects without end")
    if scheme not in ("https", "http") or (scheme == "http" and base.startswith("https:")):
        raise Unavailable(f"{base} redirects to {url}, away from TLS: refused")


def _retry_after(headers: Headers, default: float) -> float:
    value = headers.get("retry-after") or ""
    return min(float(value), RETRY_AFTER_MAX_S) if value.isdigit() else default


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


def _next_step(repository: Reference) -> str:
    if repository.domain != DEFAULT_DOMAIN:
        return ""
    return (
        ". Docker Hub does not answer. Make a base image from Debian's packages (atoll image bootstrap debian:bookworm), "
        "or name a mirror in ATOLL_REGISTRY_MIRRORS"
    )
