"""`docker save`: one tar that is a docker-archive and an OCI layout at once, as Docker has written it since version 25.

Layers go out uncompressed, named by their diff ids, so an archive of the same images has the same bytes whatever blobs are at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from atoll.images.blobs import Blobs
from atoll.images.layertar import LayerTars
from atoll.images.manifest import new_manifest
from atoll.images.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Image, sha256
from atoll.images.reference import Reference
from atoll.images.tar import Entry, Kind
from atoll.images.tarheader import TRAILER, encode, padding
from atoll.images.views import created_ns


class ArchiveWriter:
    """Writes images with the names they are to have in the archive."""

    def __init__(self, blobs: Blobs, tars: LayerTars) -> None:
        self._blobs = blobs
        self._tars = tars
        self._written: set[str] = set()

    def write(self, wanted: Sequence[tuple[Image, Sequence[Reference]]]) -> Iterator[bytes]:
        """The archive's bytes. Blocks: step it in a thread."""
        index: list[dict[str, Any]] = []
        listing: list[dict[str, Any]] = []
        repositories: dict[str, dict[str, str]] = {}
        for directory in (b"blobs", b"blobs/sha256"):
            yield encode(Entry(directory, Kind.DIRECTORY, 0o755, 0, 0, 0, 0))
        for image, names in wanted:
            layers = self._layers(image)
            for layer, blob in zip(image.layers, layers, strict=True):
                yield from self._blob(blob, self._tars.plain(layer), created_ns(image))
            config = self._blobs.read(image.id)
            yield from self._blob(Descriptor(OCI_CONFIG, image.id, len(config)), iter([config]), created_ns(image))
            manifest, data = self.manifest(image)
            yield from self._blob(manifest, iter([data]), created_ns(image))
            for name in names:
                notes = {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag or ""}
                index.append({**manifest.wire(), "annotations": notes})
                if image.layers and name.tag:
                    repositories.setdefault(name.familiar_name, {})[name.tag] = image.layers[-1].diff_id.removeprefix("sha256:")
            if not names:
                index.append(manifest.wire())
            listing.append(
                {
                    "Config": _path(image.id),
                    "RepoTags": [name.familiar for name in names],
                    "Layers": [_path(layer.digest) for layer in layers],
                }
            )
        yield from _file("index.json", orjson.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}))
        yield from _file("manifest.json", orjson.dumps(listing))
        yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        yield from _file("repositories", orjson.dumps(repositories))
        yield TRAILER

    def manifest(self, image: Image) -> tuple[Descriptor, bytes]:
        """The one IMAGE has in an archive, where its layers are plain. Blocks."""
        config = Descriptor(OCI_CONFIG, image.id, len(self._blobs.read(image.id)))
        data = new_manifest(config, self._layers(image))
        return Descriptor(OCI_MANIFEST, sha256(data), len(data)), data

    def _layers(self, image: Image) -> list[Descriptor]:
        return [Descriptor(OCI_LAYER, layer.diff_id, self._tars.size(layer)) for layer in image.layers]

    def _blob(self, blob: Descriptor, chunks: Iterator[bytes], mtime_ns: int) -> Iterator[bytes]:
        if blob.digest in self._written:
            return
        self._written.add(blob.digest)
        yield encode(Entry(_path(blob.digest).encode(), Kind.FILE, 0o644, 0, 0, blob.size, mtime_ns))
        yield from chunks
        yield padding(blob.size)


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield encode(Entry(name.encode(), Kind.FILE, 0o644, 0, 0, len(data), 0)) + data + padding(len(data))


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
