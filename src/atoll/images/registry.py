"""One registry over the OCI distribution protocol (distribution-spec 1.1): manifests and blobs in and out.

What is received is held against its digest; a download that breaks off goes on by Range, an upload begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from atoll.errors import DigestMismatch, InvalidInput, Unavailable
from atoll.http import ClientResponse, Disconnected, Headers
from atoll.images.blobs import DOCUMENT_MAX, BlobWriter
from atoll.images.manifest import ACCEPT
from atoll.images.model import Descriptor, sha256
from atoll.images.reference import DEFAULT_DOMAIN, Reference
from atoll.images.registry_auth import Credentials
from atoll.images.registry_session import ATTEMPTS, HUB, RETRIED, RegistrySettings, Session, backoff
from atoll.images.threads import to_its_end

STALL_S = 60.0  # a transfer that moves no byte for so long is begun again
WRITE_BATCH = 1 << 20  # bytes handed to a thread at a time


class Fetched(NamedTuple):
    """A manifest as it came: its descriptor, bytes verified against the digest."""

    descriptor: Descriptor
    data: bytes


class Registry(Session):
    """Raises, from every method, what Session raises."""

    # manifests -----------------------------------------------------------------------------------------------------------------------
    async def manifest(self, tag_or_digest: str) -> Fetched:
        """Raises DigestMismatch where the content is not the digest asked for, or not the one the registry claims."""
        response = await self.call("GET", self.path("manifests", tag_or_digest), [("Accept", ", ".join(ACCEPT))])
        async with response:
            await self.expect(response, 200)
            data = await response.read(DOCUMENT_MAX)
        digest = sha256(data)
        wanted = tag_or_digest if ":" in tag_or_digest else response.headers.get("docker-content-digest", digest)
        if wanted and wanted.startswith("sha256:") and wanted != digest:
            raise DigestMismatch(f"manifest {wanted} of {self.repository.familiar_name} is in truth {digest}: refused")
        return Fetched(Descriptor(response.headers.get("content-type") or "", digest, len(data)), data)

    async def put_manifest(self, tag_or_digest: str, media_type: str, data: bytes) -> None:
        response = await self.call("PUT", self.path("manifests", tag_or_digest), [("Content-Type", media_type)], data)
        async with response:
            await self.expect(response, 201, 200, 202)

    # blobs ---------------------------------------------------------------------------------------------------------------------------
    async def fetch_blob(self, blob: Descriptor, writer: BlobWriter, progress: Callable[[int], None]) -> None:
        """Fills `writer`, going on by Range where a transfer breaks off; `progress` gets the bytes so far.

        Raises DigestMismatch for more bytes than the descriptor says.
        """
        for attempt in range(ATTEMPTS):
            at = writer.size
            if at and at == blob.size:
                return
            fields = [("Range", f"bytes={at}-")] if at else []
            response = await self.call("GET", self.path("blobs", blob.digest), fields)
            try:
                async with response:
                    await self.expect(response, 200, 206)
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
                await asyncio.sleep(backoff(attempt))
        raise Unavailable(f"{self.base} broke off layer {blob.digest} {ATTEMPTS} times, at byte {writer.size} of {blob.size}")

    async def document(self, pointer: Descriptor) -> bytes:
        """A small blob, verified."""
        if pointer.size > DOCUMENT_MAX:
            raise InvalidInput(f"{pointer.digest} is a document of {pointer.size} bytes: too large")
        response = await self.call("GET", self.path("blobs", pointer.digest))
        async with response:
            await self.expect(response, 200)
            data = await response.read(DOCUMENT_MAX)
        if sha256(data) != pointer.digest or len(data) != pointer.size:
            raise DigestMismatch(f"content of {pointer.digest} is in truth {sha256(data)}: refused")
        return data

    async def has_blob(self, digest: str) -> bool:
        response = await self.call("HEAD", self.path("blobs", digest))
        async with response:
            if response.status == 404:
                return False
            await self.expect(response, 200)
            return True

    async def mount_blob(self, digest: str, source: str) -> bool:
        """Asks the registry to take the blob from its repository `source`; False where it will not."""
        scopes = (*self.scopes, f"repository:{source}:pull")
        response = await self.call("POST", self.path("blobs", f"uploads/?mount={digest}&from={source}"), scopes=scopes)
        async with response:
            return response.status == 201

    async def put_blob(self, blob: Descriptor, chunks: Callable[[], AsyncIterator[bytes]], progress: Callable[[int], None]) -> None:
        """Uploads in one piece, from the start again where it fails."""
        for attempt in range(ATTEMPTS):
            response = await self.call("POST", self.path("blobs", "uploads/"))
            async with response:
                await self.expect(response, 202)
                location = response.headers.get("location")
            if not location:
                raise Unavailable(f"{self.base} gave no place to upload to")
            url = urljoin(self.base, location)
            url += f"{'&' if urlsplit(url).query else '?'}digest={blob.digest}"
            try:
                await self._upload(url, blob, chunks, progress)
                return
            except (Unavailable, Disconnected, TimeoutError) as error:
                if attempt == ATTEMPTS - 1:
                    raise Unavailable(f"{self.base} took no upload of layer {blob.digest}: {error or 'it stalled'}") from error
            await asyncio.sleep(backoff(attempt))

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

            response = await self.follow("PUT", url, fields, watched, self.scopes, 0)
            async with response:
                if response.status in RETRIED:
                    raise Unavailable(f"status {response.status}")
                await self.expect(response, 201)


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
                    data = bytes(batch)
                    batch.clear()
                    await to_its_end(asyncio.to_thread(writer.write, data))
                    progress(writer.size)
        finally:
            # What has arrived counts, so that Range can go on from there.
            if batch and writer.size + len(batch) <= blob.size:
                writer.write(bytes(batch))
            progress(writer.size)


def _check_range(headers: Headers, at: int) -> None:
    if not (headers.get("content-range") or "").startswith(f"bytes {at}-"):
        raise Unavailable("the registry went on at another byte than it was asked for")
