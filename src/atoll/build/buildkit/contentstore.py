"""Content that lies with the client: OCI layouts and local caches, over containerd's content service on its session.

A session may have several stores, so each call says which. What comes is held against its digest, as a registry's would be; what goes is
written under a name of its own and committed whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from enum import IntEnum

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Code, OutgoingCall, RpcError
from atoll.build.buildkit.sessions import Session
from atoll.errors import DigestMismatch, InvalidInput, NotFound
from atoll.images import Descriptor
from atoll.images.blobs import DOCUMENT_MAX, BlobWriter
from atoll.images.bridge import produce
from atoll.images.model import sha256
from atoll.images.registry import WRITE_BATCH, Fetched
from atoll.images.threads import in_thread

SERVICE = "/containerd.services.content.v1.Content/"
STORE_KEY = "buildkit-attachable-store-id"
PIECE = 1 << 19  # bytes of one message


class Action(IntEnum):
    """containerd.services.content.v1.WriteAction."""

    STAT = 0
    WRITE = 1
    COMMIT = 2


class ContentStore:
    """The store NAME of a session; a Source of images. Raises RpcError and Disconnected, from every method."""

    def __init__(self, session: Session, name: str) -> None:
        self._channel = session.channel
        self._metadata = [(STORE_KEY, name)]

    async def manifest(self, tag_or_digest: str) -> Fetched:
        """By its digest alone: which tag it bears the client knows. Raises NotFound, DigestMismatch, InvalidInput."""
        request = messages.InfoContentRequest(digest=tag_or_digest)
        try:
            answer = await self._channel.unary(f"{SERVICE}Info", request, messages.InfoContentResponse, self._metadata)
        except RpcError as error:
            if error.code == Code.NOT_FOUND:
                raise NotFound(f"the client's store has no {tag_or_digest}") from error
            raise
        pointer = Descriptor("", tag_or_digest, answer.info.size)
        return Fetched(pointer, await self.document(pointer))

    async def document(self, pointer: Descriptor) -> bytes:
        """Raises NotFound, DigestMismatch, InvalidInput."""
        if pointer.size > DOCUMENT_MAX:
            raise InvalidInput(f"{pointer.digest} is a document of {pointer.size} bytes: too large")
        data = b"".join([piece async for piece in self._read(pointer)])
        if sha256(data) != pointer.digest:
            raise DigestMismatch(f"content of {pointer.digest} is in truth {sha256(data)}: refused")
        return data

    async def fetch_blob(self, blob: Descriptor, writer: BlobWriter, progress: Callable[[int], None]) -> None:
        """Fills WRITER from where it stands. Raises NotFound, DigestMismatch."""
        batch = bytearray()
        async for piece in self._read(blob, writer.size):
            batch += piece
            if len(batch) >= WRITE_BATCH:
                data = bytes(batch)
                batch.clear()
                await in_thread(lambda data=data: writer.write(data))  # type: ignore[misc]
                progress(writer.size)
        await in_thread(lambda: writer.write(bytes(batch)))

    async def _read(self, blob: Descriptor, offset: int = 0) -> AsyncIterator[bytes]:
        """Raises NotFound; DigestMismatch for more bytes than the descriptor says."""
        at = offset
        try:
            async with self._channel.call(f"{SERVICE}Read", self._metadata) as call:
                await call.send(messages.ReadContentRequest(digest=blob.digest, offset=offset))
                call.write_eof()
                while (answer := await call.receive(messages.ReadContentResponse)) is not None:
                    at += len(answer.data)
                    if at > blob.size:
                        raise DigestMismatch(f"content of {blob.digest} has more than the {blob.size} bytes its descriptor says: refused")
                    yield answer.data
        except RpcError as error:
            if error.code == Code.NOT_FOUND:
                raise NotFound(f"the client's store has no {blob.digest}") from error
            raise
        if at < blob.size:
            raise DigestMismatch(f"content of {blob.digest} has {at} bytes where its descriptor says {blob.size}: refused")

    async def write(self, blob: Descriptor, chunks: Iterator[bytes]) -> None:
        """A blob; one that is there already stays as it is."""
        try:
            async with self._channel.call(f"{SERVICE}Write", self._metadata) as call:
                await self._write(call, blob, chunks)
        except RpcError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise

    async def _write(self, call: OutgoingCall, blob: Descriptor, chunks: Iterator[bytes]) -> None:
        """Each message has its answer; the first at offset 0 does away with what an earlier export may have left."""

        async def say(action: Action, offset: int = 0, data: bytes = b"") -> None:
            what = {"ref": f"atoll-{blob.digest}", "total": blob.size, "expected": blob.digest, "offset": offset, "data": data}
            await call.send(messages.WriteContentRequest(action=action, **what))
            if await call.receive(messages.WriteContentResponse) is None:
                raise RpcError(Code.INTERNAL, f"the client's store ended the writing of {blob.digest} too early")

        at = 0
        await say(Action.STAT)
        async for chunk in produce(chunks):
            for start in range(0, len(chunk), PIECE):
                piece = chunk[start : start + PIECE]
                await say(Action.WRITE, at, piece)
                at += len(piece)
        await say(Action.COMMIT, at)
        await call.finish()
