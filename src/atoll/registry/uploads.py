"""Blobs on their way in: upload sessions, resumable, hashed as they arrive.

A session is a file ROOT/uploads/<id>.<repository's key>.<algorithm>: its size is the offset, so it needs no row, and a session survives a
restart of the server (it is then read once, to hash what is there). What a request brings is hashed and written in a thread while the
next batch is received: memory is bounded by two batches a request, whatever the blob's size.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atoll.http import BodyTimeout
from atoll.registry.content import Content
from atoll.registry.errors import Code, Refused, disk_failure
from atoll.registry.names import ALGORITHMS

EXPIRY_S = 24 * 3600.0  # since the last byte of an upload nobody finished
OPEN_MAX = 1000  # sessions at a time
STALL_S = 60.0  # a request that moves no byte for so long is given up
BATCH = 1 << 20  # bytes handed to a thread at a time
BATCH_PIECES = 512  # writev takes 1024
READ_SIZE = 1 << 20
_IDENTIFIER = re.compile(r"[0-9a-f]{32}")


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Hash: ...


@dataclass(slots=True)
class Upload:
    """One session. `size` bytes have arrived, and are in `hash` and in the file."""

    id: str
    repository: str
    algorithm: str
    path: Path
    hash: Hash
    touched: float
    size: int = 0
    busy: bool = False

    @property
    def digest(self) -> str:
        return f"{self.algorithm}:{self.hash.hexdigest()}"


class Uploads:
    """The open sessions of one server. `blob_max`: bytes a blob may have, None for no limit."""

    def __init__(
        self, content: Content, *, blob_max: int | None = None, expiry_s: float = EXPIRY_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = content.uploads
        self._blob_max = blob_max
        self._expiry_s = expiry_s
        self._clock = clock
        self._open: dict[str, Upload] = {}

    def start(self, repository: str, algorithm: str) -> Upload:
        """Raises Refused TOOMANYREQUESTS."""
        if len(self._open) >= OPEN_MAX:
            raise Refused(Code.TOOMANYREQUESTS, f"{OPEN_MAX} uploads are open: finish or cancel some", headers=(("Retry-After", "30"),))
        identifier = secrets.token_hex(16)
        path = self._path(identifier, repository, algorithm)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        upload = Upload(identifier, repository, algorithm, path, hashlib.new(algorithm), self._clock())
        self._open[identifier] = upload
        return upload

    @contextlib.contextmanager
    def using(self, upload: Upload) -> Iterator[Upload]:
        """One request at a time. Raises Refused with 409 where another is at work on the session."""
        if upload.busy:
            raise Refused(Code.BLOB_UPLOAD_INVALID, "another request is writing to this upload", status=409)
        upload.busy = True
        try:
            yield upload
        finally:
            upload.busy = False
            upload.touched = self._clock()

    async def find(self, repository: str, identifier: str) -> Upload:
        """Raises Refused BLOB_UPLOAD_UNKNOWN, also for a session of another repository."""
        upload = self._open.get(identifier) or await self._resume(repository, identifier)
        if upload is None or upload.repository != repository:
            raise Refused(Code.BLOB_UPLOAD_UNKNOWN, "there is no such upload: begin again", detail={"upload": identifier[:64]})
        return upload

    async def _resume(self, repository: str, identifier: str) -> Upload | None:
        """A session of a server before this one, from its file."""
        for algorithm in ALGORITHMS if _IDENTIFIER.fullmatch(identifier) else ():
            path = self._path(identifier, repository, algorithm)
            if path.exists():
                state, size = await asyncio.to_thread(_hashed, path, algorithm)
                resumed = Upload(identifier, repository, algorithm, path, state, self._clock(), size)
                return self._open.setdefault(identifier, resumed)  # another request may have been quicker
        return None

    def _path(self, identifier: str, repository: str, algorithm: str) -> Path:
        """The repository stands in the name as a key: names hold slashes, and are longer than a file's may be."""
        return self._directory / f"{identifier}.{hashlib.sha256(repository.encode()).hexdigest()[:16]}.{algorithm}"

    def cancel(self, upload: Upload) -> None:
        """Forgets the session, and its bytes where they did not become a blob."""
        self._open.pop(upload.id, None)
        upload.path.unlink(missing_ok=True)

    def expire(self) -> int:
        """Cancels what nobody has written to for long; how many."""
        limit = self._clock() - self._expiry_s
        stale = [upload for upload in self._open.values() if not upload.busy and upload.touched < limit]
        for upload in stale:
            self.cancel(upload)
        held = {upload.path.name for upload in self._open.values()}
        return len(stale) + delete_stale(self._directory, limit, held)

    # receiving -----------------------------------------------------------------------------------------------------------------------
    async def receive(self, upload: Upload, pieces: AsyncIterator[bytes], *, keep: bool, expected: int | None = None) -> None:
        """Appends a request's body; the caller is `using` the upload.

        Where the client goes before its end, what came stays if `keep`, else the upload is as before. Raises Refused SIZE_INVALID for more
        than a blob may have, or another number of bytes than `expected`; Refused with 507 for a full disk, which ends the session;
        BodyTimeout.
        """
        before = upload.size, upload.hash.copy()
        fd = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            await self._append(upload, fd, pieces, None if expected is None else upload.size + expected)
            if expected is not None and upload.size != before[0] + expected:
                message = f"Content-Range tells of {expected} bytes, the body has {upload.size - before[0]}"
                raise Refused(Code.SIZE_INVALID, message)
        except BaseException as error:
            if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                self.cancel(upload)
                raise disk_failure(error) from error
            if not keep or isinstance(error, Refused):
                upload.size, upload.hash = before
                os.ftruncate(fd, upload.size)
            raise
        finally:
            os.close(fd)

    async def _append(self, upload: Upload, fd: int, pieces: AsyncIterator[bytes], end: int | None) -> None:
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[None] | None = None
        batch: list[bytes] = []
        held = 0
        total = upload.size
        try:
            async with asyncio.timeout(STALL_S) as watchdog:
                async for piece in pieces:
                    watchdog.reschedule(loop.time() + STALL_S)
                    batch.append(piece)
                    held += len(piece)
                    total += len(piece)
                    self._check_size(total, end)
                    if held >= BATCH or len(batch) >= BATCH_PIECES:
                        if pending is not None:
                            await pending
                        pending = loop.run_in_executor(None, _write, upload, fd, batch)
                        batch, held = [], 0
        except TimeoutError:
            raise BodyTimeout(f"no byte of the upload came for {STALL_S:g} s") from None
        finally:
            if pending is not None:
                await _settled(pending)
            if batch:
                await _settled(loop.run_in_executor(None, _write, upload, fd, batch))

    def _check_size(self, total: int, end: int | None) -> None:
        if self._blob_max is not None and total > self._blob_max:
            raise Refused(Code.SIZE_INVALID, f"a blob may have {self._blob_max} bytes here, this one has more", status=413)
        if end is not None and total > end:
            raise Refused(Code.SIZE_INVALID, "the body has more bytes than its Content-Range tells of")


async def _settled(work: asyncio.Future[None]) -> None:
    """The end of a thread's work, waited for even by who is cancelled: the thread holds a descriptor that is closed next."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    work.result()
    if cancelled:
        raise asyncio.CancelledError


def delete_stale(directory: Path, limit: float, held: set[str]) -> int:
    """Deletes upload files last written before LIMIT (seconds of the epoch), but those HELD; how many."""
    count = 0
    for name in os.listdir(directory):
        path = directory / name
        if name in held:
            continue
        with contextlib.suppress(FileNotFoundError):  # finished or cancelled just now
            if path.stat().st_mtime < limit:
                path.unlink()
                count += 1
    return count


def sync_as(path: Path, algorithm: str | None) -> str | None:
    """Brings an upload's bytes to the disk; its digest by ALGORITHM, where one is asked for. Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
    return f"{algorithm}:{_hashed(path, algorithm)[0].hexdigest()}" if algorithm else None


def _hashed(path: Path, algorithm: str) -> tuple[Hash, int]:
    state = hashlib.new(algorithm)
    size = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(READ_SIZE):
            state.update(data)
            size += len(data)
    return state, size


def _write(upload: Upload, fd: int, pieces: list[bytes]) -> None:
    for piece in pieces:
        upload.hash.update(piece)
    at = upload.size
    written = os.pwritev(fd, pieces, at)
    total = sum(map(len, pieces))
    if written < total:  # a nearly full disk takes some, and says so on the next write
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            count = os.pwrite(fd, rest, at + total - len(rest))
            rest = rest[count:]
    upload.size = at + total
