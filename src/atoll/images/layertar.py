"""A layer's tar, wherever it is best taken from: a blob that is here, or its directory packed again."""

from __future__ import annotations

from collections.abc import Iterator

from atoll.images.blobs import Blobs
from atoll.images.compression import compress, decompress
from atoll.images.database import Database
from atoll.images.model import DOCKER_LAYER_GZIP, OCI_LAYER, Descriptor, Layer
from atoll.images.snapshots import Snapshots

GZIP_LAYER = f"{OCI_LAYER}+gzip"


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

    def packed(self, layer: Layer) -> Descriptor:
        """A compressed blob of the layer that is here, made where there is none. Blocks. Hold the store's content meanwhile."""
        found = (as_oci(blob) for blob in self.at_hand(layer) if blob.media_type != OCI_LAYER)
        return next(found, None) or self.compress(layer)

    def compress(self, layer: Layer) -> Descriptor:
        """The layer as a new gzip blob, which the next collection takes away; its digest stays known, for a push to ask for. Blocks."""
        with self._blobs.writer() as writer:
            for chunk in compress(self.plain(layer)):
                writer.write(chunk)
            size = writer.size
            blob = Descriptor(GZIP_LAYER, writer.commit(), size)
        self._database.add_layer_blob(layer.diff_id, blob)
        return blob

    def plain(self, layer: Layer) -> Iterator[bytes]:
        """The plain tar, whose digest is the layer's diff id. Blocks."""
        for blob in self.at_hand(layer):
            return decompress(self._blobs.chunks(blob.digest))
        return self._snapshots.tar(layer)


def as_oci(blob: Descriptor) -> Descriptor:
    """The same under OCI's name, where Docker's is another."""
    return Descriptor(GZIP_LAYER, blob.digest, blob.size) if blob.media_type == DOCKER_LAYER_GZIP else blob
