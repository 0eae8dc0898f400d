"""Pulling: manifest, then layers, downloaded side by side and unpacked in order, each while it arrives.

Nothing becomes visible before all of it is here, verified, and on disk. What is here already is not fetched again: a layer is known by its
chain id, which the configuration tells before any layer is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from atoll.errors import DigestMismatch, InvalidInput, NotFound, Unauthenticated, Unavailable
from atoll.images.blobs import Blobs, BlobWriter
from atoll.images.catalog import Catalog, parse_config
from atoll.images.database import Database
from atoll.images.manifest import DEPTH_MAX, INDEXES, Manifest, choose, document, media_type, parse_index, parse_manifest
from atoll.images.model import Descriptor, Layer, Platform, Progress, chain_id
from atoll.images.reference import Reference
from atoll.images.registry import Fetched
from atoll.images.snapshots import Snapshots
from atoll.images.threads import to_its_end

PARALLEL = 3  # layers at a time, Docker's default
REPORT_S = 0.1  # between two progress messages of one layer


@dataclass(frozen=True, slots=True)
class Pulled:
    """`digest` is what the name pointed to: of the index, where there is one; `blobs` are those of the image."""

    image_id: str
    digest: str
    blobs: tuple[Descriptor, ...]


class Source(Protocol):
    """Where images come from: a registry, or what answers like one. Raises what Registry does."""

    async def manifest(self, tag_or_digest: str) -> Fetched: ...
    async def document(self, pointer: Descriptor) -> bytes: ...
    async def fetch_blob(self, blob: Descriptor, writer: BlobWriter, progress: Callable[[int], None]) -> None: ...


class _Arriving:
    """A layer's blob on its way, `complete` once it is verified.

    It has `begun` once it may be read: from `writer` while it arrives, or, where that is None, from the store. What an earlier pull left is
    not read before it is verified.
    """

    def __init__(self, blob: Descriptor) -> None:
        self.blob = blob
        self.writer: BlobWriter | None = None
        self.begun = asyncio.Event()
        self.complete = asyncio.Event()


class Puller:
    """One pull of one reference."""

    def __init__(
        self, database: Database, blobs: Blobs, snapshots: Snapshots, catalog: Catalog, registry: Source, progress: Progress
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._catalog = catalog
        self._registry = registry
        self._progress = progress

    async def pull(self, reference: Reference, platform: Platform) -> Pulled:
        """Raises NotFound and Unauthenticated with Docker's words, DigestMismatch, InvalidInput, Unavailable."""
        wanted = reference.digest or reference.tag or "latest"
        top = await self._top(reference, wanted)
        self._progress({"status": f"Pulling from {reference.path}", "id": wanted})
        fetched, manifest = await self._manifest(top, platform, reference)
        config = await self._registry.document(manifest.config)
        diff_ids: list[str] = parse_config(config)["rootfs"]["diff_ids"]
        if len(diff_ids) != len(manifest.layers):
            raise InvalidInput(f"{reference.familiar} is no container image: {len(manifest.layers)} layers, {len(diff_ids)} diff ids")
        layers = await self.layers(manifest.layers, diff_ids)
        self._blobs.add(fetched.data)
        image_id = self._catalog.add(config, layers, manifest=fetched.descriptor)
        return Pulled(image_id, top.descriptor.digest, (manifest.config, *manifest.layers))

    async def _top(self, reference: Reference, wanted: str) -> Fetched:
        try:
            return await self._registry.manifest(wanted)
        except Unauthenticated as error:
            if "incorrect" in str(error):
                raise
            # What a registry hides and what it does not have look the same from outside.
            raise NotFound(
                f"pull access denied for {reference.familiar_name}, repository does not exist or may require 'docker login': "
                "denied: requested access to the resource is denied"
            ) from error
        except NotFound as error:
            if str(error).startswith("repository "):
                raise
            raise NotFound(f"manifest for {reference.with_default_tag().familiar} not found: {error}") from error

    async def _manifest(self, fetched: Fetched, platform: Platform, reference: Reference) -> tuple[Fetched, Manifest]:
        """Through indexes to the manifest for `platform`."""
        for _ in range(DEPTH_MAX):
            value = document(fetched.data, "the manifest")
            kind = media_type(value, fetched.descriptor.media_type)
            if kind not in INDEXES:
                described = Descriptor(kind, fetched.descriptor.digest, fetched.descriptor.size)
                return Fetched(described, fetched.data), parse_manifest(value)
            fetched = await self._registry.manifest(choose(parse_index(value), platform, reference.familiar).digest)
        raise InvalidInput(f"{reference.familiar} nests its indexes too deeply")

    async def layers(self, blobs: Sequence[Descriptor], diff_ids: Sequence[str]) -> list[Layer]:
        """Unpacked layers, bottom up, from the lowest of a stack. Raises DigestMismatch, InvalidInput, Unavailable."""
        chains: list[str] = []
        for diff_id in diff_ids:
            chains.append(chain_id(chains[-1] if chains else None, diff_id))
        slots = asyncio.Semaphore(PARALLEL)
        for blob in blobs:
            self._progress({"status": "Pulling fs layer", "progressDetail": {}, "id": short(blob.digest)})
        arriving: dict[int, _Arriving] = {}
        layers: list[Layer] = []
        try:
            async with asyncio.TaskGroup() as group:
                for number, (blob, chain) in enumerate(zip(blobs, chains, strict=True)):
                    if self._snapshots.find(chain) is None:
                        arriving[number] = _Arriving(blob)
                        group.create_task(self._download(arriving[number], slots), name=f"download {blob.digest}")
                for number, (blob, diff_id, chain) in enumerate(zip(blobs, diff_ids, chains, strict=True)):
                    parent = chains[number - 1] if number else None
                    if number in arriving:
                        layers.append(await self._unpack(arriving[number], diff_id, parent))
                    else:
                        layers.append(self._snapshots.get(chain))
                        self._progress({"status": "Already exists", "progressDetail": {}, "id": short(blob.digest)})
        except BaseExceptionGroup as error:
            cause = first_cause(error)
            if not isinstance(cause, Unavailable):  # what was refused, or had no room, is not to be gone on with
                for one in arriving.values():
                    self._blobs.discard_download(one.blob.digest)
            raise cause from error
        return layers

    async def _download(self, arriving: _Arriving, slots: asyncio.Semaphore) -> None:
        blob = arriving.blob
        identifier = short(blob.digest)
        if self._blobs.borrow(blob):
            arriving.begun.set()
            arriving.complete.set()
            return
        if slots.locked():
            self._progress({"status": "Waiting", "progressDetail": {}, "id": identifier})
        async with slots:
            with self._blobs.downloader(blob.digest) as writer:
                taken_up = await to_its_end(asyncio.to_thread(writer.take_up, blob.size))
                if not taken_up:
                    arriving.writer = writer
                    arriving.begun.set()
                try:
                    await self._receive(blob, writer)
                except DigestMismatch:
                    if not taken_up:
                        raise
                    writer.restart()  # a power failure spoils what an earlier pull left
                    await self._receive(blob, writer)
        self._progress({"status": "Download complete", "progressDetail": {}, "id": identifier})
        arriving.begun.set()
        arriving.complete.set()

    async def _receive(self, blob: Descriptor, writer: BlobWriter) -> None:
        identifier = short(blob.digest)
        await self._registry.fetch_blob(blob, writer, self._throttled("Downloading", identifier, blob.size))
        self._progress({"status": "Verifying Checksum", "progressDetail": {}, "id": identifier})
        writer.commit(digest=blob.digest, size=blob.size)

    async def _unpack(self, arriving: _Arriving, diff_id: str, parent: str | None) -> Layer:
        """Unpacks the blob while it comes in."""
        blob = arriving.blob
        identifier = short(blob.digest)
        await arriving.begun.wait()
        chunks = arriving.writer.follow() if arriving.writer else self._blobs.chunks(blob.digest)
        work = asyncio.ensure_future(asyncio.to_thread(self._snapshots.unpack_blob_now, chunks, parent, diff_id))
        complete = asyncio.ensure_future(arriving.complete.wait())
        try:
            await asyncio.wait([work, complete], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._progress({"status": "Extracting", "progressDetail": {"current": 0, "total": blob.size}, "id": identifier})
            layer = await asyncio.shield(work)
        except asyncio.CancelledError:
            if arriving.writer is not None:
                arriving.writer.abandon()
            await asyncio.wait([work])  # what it had made is gone when the pull has failed
            work.exception()  # seen: the cause is what the caller hears of
            raise
        finally:
            complete.cancel()
        self._database.add_layer_blob(diff_id, blob)
        self._progress({"status": "Pull complete", "progressDetail": {}, "id": identifier})
        return layer

    def _throttled(self, status: str, identifier: str, total: int) -> Callable[[int], None]:
        loop = asyncio.get_running_loop()
        last = 0.0

        def report(current: int) -> None:
            nonlocal last
            now = loop.time()
            if now - last >= REPORT_S:
                last = now
                self._progress({"status": status, "progressDetail": {"current": current, "total": total}, "id": identifier})

        return report


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell: what one of several side by side met first, not the cancellations that followed."""
    for error in group.exceptions:
        cause = first_cause(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(cause, asyncio.CancelledError):
            return cause
    return group
