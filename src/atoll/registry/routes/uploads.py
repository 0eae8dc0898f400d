"""Pushing blobs: in one piece, in chunks, in a stream, or by mounting what another repository has."""

from __future__ import annotations

import asyncio

from atoll.http import Request, Response, Router
from atoll.registry import names, ranges
from atoll.registry.errors import Code, Refused
from atoll.registry.store import Store
from atoll.registry.uploads import Upload, Uploads, sync_as


class UploadRoutes:
    def __init__(self, store: Store, uploads: Uploads) -> None:
        self._store = store
        self._uploads = uploads

    def add_to(self, router: Router) -> None:
        router.add("POST", "/v2/{name:path}/blobs/uploads", self.post)
        router.add("POST", "/v2/{name:path}/blobs/uploads/", self.post)
        for method, handler in (("GET", self.status), ("PATCH", self.patch), ("PUT", self.put), ("DELETE", self.cancel)):
            router.add(method, "/v2/{name:path}/blobs/uploads/{upload}", handler)

    async def post(self, request: Request, name: str) -> Response:
        """Mounts, or takes a whole blob with `?digest=`, or opens a session: also where the mount cannot be done."""
        repository = names.repository(name)
        query = request.query
        if mount := query.get("mount"):
            source = query.get("from")
            where = names.repository(source) if source else None
            if await asyncio.to_thread(self._store.mount_blob, repository, names.digest(mount), where):
                return _created(repository, mount)
        digest = names.digest(query.get("digest")) if "digest" in query else None
        algorithm = names.algorithm_of(digest) if digest else query.get("digest-algorithm") or "sha256"
        if algorithm not in names.ALGORITHMS:
            raise Refused(Code.DIGEST_INVALID, f"digests here are {' or '.join(names.ALGORITHMS)}, not {algorithm[:64]!r}")
        upload = self._uploads.start(repository, algorithm)
        if digest is None:
            return Response(202, _progress(upload))
        try:
            with self._uploads.using(upload):
                await self._uploads.receive(upload, request.chunks(), keep=False)
                return await self._finish(upload, digest)
        finally:
            self._uploads.cancel(upload)  # nobody was told its name

    async def status(self, request: Request, name: str, upload: str) -> Response:
        return Response(204, _progress(await self._uploads.find(names.repository(name), upload)))

    async def patch(self, request: Request, name: str, upload: str) -> Response:
        """Appends a chunk, or without Content-Range whatever comes. What came of a broken one counts: the client asks and goes on."""
        session = await self._uploads.find(names.repository(name), upload)
        with self._uploads.using(session):
            expected = _next_chunk(request, session)
            await self._uploads.receive(session, request.chunks(), keep=True, expected=expected)
            return Response(202, _progress(session))

    async def put(self, request: Request, name: str, upload: str) -> Response:
        """Closes the session, with its last bytes or all of them; a broken one has no effect."""
        session = await self._uploads.find(names.repository(name), upload)
        digest = names.digest(request.query.get("digest"))
        with self._uploads.using(session):
            expected = _next_chunk(request, session)
            await self._uploads.receive(session, request.chunks(), keep=False, expected=expected)
            return await self._finish(session, digest)

    async def cancel(self, request: Request, name: str, upload: str) -> Response:
        session = await self._uploads.find(names.repository(name), upload)
        with self._uploads.using(session):
            self._uploads.cancel(session)
        return Response(204)

    async def _finish(self, upload: Upload, digest: str) -> Response:
        """The session's bytes as a blob. Raises Refused DIGEST_INVALID, and forgets them, where they are another."""
        algorithm = names.algorithm_of(digest)
        known = upload.digest if algorithm == upload.algorithm else None
        if known is None or known == digest:
            read = await asyncio.to_thread(sync_as, upload.path, None if known else algorithm)
            known = known or read
        if known != digest:
            self._uploads.cancel(upload)
            raise Refused(Code.DIGEST_INVALID, f"the content is in truth {known}", detail={"digest": digest})
        try:
            await asyncio.to_thread(self._store.add_blob, upload.repository, upload.path, digest, upload.size)
        finally:
            self._uploads.cancel(upload)  # the file is the blob's now; or the disk is full, and room is what helps
        return _created(upload.repository, digest)


def _next_chunk(request: Request, upload: Upload) -> int | None:
    """How many bytes Content-Range tells of. Raises Refused with 416 where they do not go on where the upload is."""
    part = ranges.sent(request.headers.get("content-range"))
    if part is None:
        return None
    if part.start != upload.size:
        message = f"the upload goes on at byte {upload.size}, not {part.start}"
        raise Refused(Code.BLOB_UPLOAD_INVALID, message, status=416, headers=_progress(upload))
    return part.length


def _progress(upload: Upload) -> list[tuple[str, str]]:
    return [
        ("Location", f"/v2/{upload.repository}/blobs/uploads/{upload.id}"),
        ("Range", f"0-{max(0, upload.size - 1)}"),  # 0-0 also for nothing yet: the protocol has no other word
        ("Docker-Upload-UUID", upload.id),
    ]


def _created(repository: str, digest: str) -> Response:
    return Response(201, [("Location", f"/v2/{repository}/blobs/{digest}"), ("Docker-Content-Digest", digest)])
