"""Pushing: what the registry lacks of an image, then its manifest.

Before a layer is uploaded the registry is asked whether it has it (HEAD), then whether it can take it from another of its repositories
(mount). An image that was pulled keeps its manifest, and so its digest; for one made here an OCI manifest over gzip layers is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from atoll.errors import NotFound
from atoll.images.blobs import Blobs
from atoll.images.bridge import produce
from atoll.images.database import Database
from atoll.images.layertar import LayerTars, as_oci
from atoll.images.manifest import document, new_manifest, parse_manifest
from atoll.images.model import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Image, Layer, Progress, sha256
from atoll.images.pull import PARALLEL, REPORT_S, short
from atoll.images.reference import Reference, parse_canonical
from atoll.images.registry import Registry


class Pusher:
    """One push of one image to one repository."""

    def __init__(self, database: Database, blobs: Blobs, tars: LayerTars, registry: Registry, progress: Progress) -> None:
        self._database = database
        self._blobs = blobs
        self._tars = tars
        self._registry = registry
        self._progress = progress

    async def push(self, image: Image, target: Reference) -> Descriptor:
        """The manifest's descriptor. Raises Unauthenticated, Forbidden, Unavailable, RegistryError."""
        original = self._original(image)
        layers = await self.layers(image.layers, target, original[1] if original else ())
        config = self._blobs.read(image.id)
        pointer = Descriptor(OCI_CONFIG, image.id, len(config))
        await self.document(pointer, config)
        if original:
            manifest, data = original[0], self._blobs.read(original[0].digest)
        else:
            data = new_manifest(pointer, layers)
            manifest = Descriptor(OCI_MANIFEST, sha256(data), len(data))
        await self.manifest(target, manifest, data)
        for blob in (pointer, *layers):
            self._database.add_source(blob.digest, target.name)
        return manifest

    async def layers(self, layers: Sequence[Layer], target: Reference, wanted: Sequence[Descriptor] = ()) -> list[Descriptor]:
        """The blobs the repository has them as, in order: those WANTED, where given."""
        for layer in layers:
            self._progress({"status": "Preparing", "progressDetail": {}, "id": short(layer.diff_id)})
        slots = asyncio.Semaphore(PARALLEL)
        forms: Sequence[Descriptor | None] = wanted or [None] * len(layers)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._layer(layer, blob, target, slots), name=f"push {layer.diff_id}")
                for layer, blob in zip(layers, forms, strict=True)
            ]
        return [task.result() for task in tasks]

    async def document(self, pointer: Descriptor, data: bytes) -> None:
        """A small blob."""
        if not await self._registry.has_blob(pointer.digest):
            await self._registry.put_blob(pointer, lambda: _once(data), lambda _: None)

    async def manifest(self, target: Reference, manifest: Descriptor, data: bytes) -> None:
        """What makes the rest visible: last."""
        await self._registry.put_manifest(target.tag or manifest.digest, manifest.media_type, data)

    def _original(self, image: Image) -> tuple[Descriptor, tuple[Descriptor, ...]] | None:
        """The manifest the image came with, where all it names is still here to be given."""
        if image.manifest is None:
            return None
        try:
            manifest = parse_manifest(document(self._blobs.read(image.manifest.digest), "the manifest"))
        except NotFound:
            return None
        if len(manifest.layers) != len(image.layers):
            return None
        for layer, blob in zip(image.layers, manifest.layers, strict=True):
            if blob.digest not in {one.digest for one in self._tars.at_hand(layer)}:
                return None
        return image.manifest, manifest.layers

    async def _layer(self, layer: Layer, wanted: Descriptor | None, target: Reference, slots: asyncio.Semaphore) -> Descriptor:
        """Makes sure the registry has the layer; the blob it has it as."""
        identifier = short(layer.diff_id)
        if slots.locked():
            self._progress({"status": "Waiting", "progressDetail": {}, "id": identifier})
        async with slots:
            candidates = [wanted] if wanted else [as_oci(blob) for blob in self._tars.known(layer) if blob.media_type != OCI_LAYER]
            for blob in candidates:
                if await self._registry.has_blob(blob.digest):
                    self._progress({"status": "Layer already exists", "progressDetail": {}, "id": identifier})
                    return blob
                for source in self._database.sources(blob.digest):
                    other = parse_canonical(source)
                    if (
                        other.domain == target.domain
                        and other.path != target.path
                        and await self._registry.mount_blob(blob.digest, other.path)
                    ):
                        self._progress({"status": f"Mounted from {other.path}", "progressDetail": {}, "id": identifier})
                        return blob
            return await self._upload(layer, candidates, identifier)

    async def _upload(self, layer: Layer, candidates: list[Descriptor], identifier: str) -> Descriptor:
        blob = next((one for one in candidates if self._blobs.size(one.digest) is not None), None)
        if blob is None:
            blob = await asyncio.to_thread(self._tars.compress, layer)  # collected after the push
        digest = blob.digest
        await self._registry.put_blob(blob, lambda: produce(self._blobs.chunks(digest)), self._reporter(identifier, blob.size))
        self._progress({"status": "Pushed", "progressDetail": {}, "id": identifier})
        return blob

    def _reporter(self, identifier: str, total: int) -> Callable[[int], None]:
        last = 0.0

        def report(current: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= REPORT_S or current == total:
                last = now
                self._progress({"status": "Pushing", "progressDetail": {"current": current, "total": total}, "id": identifier})

        return report


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
