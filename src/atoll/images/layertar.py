"""A layer's tar, wherever it is best taken from: a blob that is here, or its directory packed again."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.images.blobs import Blobs
from atoll.images.compression import decompress
from atoll.images.database import Database
from atoll.images.model import Descriptor, Layer
from atoll.images.snapshots import Snapshots


class LayerTars:
    def __init__(self, database: Database, blobs: Blobs, snapshots: Snapshots) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots

    def known(self, layer: Layer) -> list[Descriptor]:
        """Every packed form the layer has been seen in, at hand or not."""
        return self._database.layer_blobs(layer.diff_id)

    def at_hand(self, layer: Layer) -> list[Descriptor]:
        return [blob for blob in self.known(layer) if self._blobs.size(blob.digest) is not None]

    def size(self, layer: Layer) -> int:
        """Bytes of the plain tar."""
        row = self._database.layer(layer.chain_id)
        assert row is not None, "an image's layers are always there"
        return row.tar_size

    def plain(self, layer: Layer) -> Iterator[bytes]:
        """The plain tar, whose digest is the layer's diff id. Blocks."""
        for blob in self.at_hand(layer):
            return decompress(self._blobs.chunks(blob.digest))
        return self._snapshots.tar(layer)
