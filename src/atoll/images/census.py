"""What is here, as the Docker API tells of it: lists, inspections, and what it all costs on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atoll.images import views
from atoll.images.blobs import Blobs
from atoll.images.catalog import Catalog
from atoll.images.database import Database
from atoll.images.layertar import LayerTars
from atoll.images.model import Image, Users
from atoll.images.snapshots import Snapshots
from atoll.images.usage import Usage


class Census:
    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        snapshots: Snapshots,
        catalog: Catalog,
        tars: LayerTars,
        usage: Usage,
        users: Users,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._catalog = catalog
        self._tars = tars
        self._usage = usage
        self._users = users
        self._clock = clock

    def inspect(self, image: Image, *, manifests: bool) -> dict[str, Any]:
        return {**views.inspect(image), **(self._manifests(image) if manifests else {})}

    def summaries(self, filters: dict[str, list[str]], *, shared_size: bool, manifests: bool) -> list[dict[str, Any]]:
        """Newest first. Raises InvalidInput."""
        chosen = views.select(self._catalog.all(), filters, resolve=self._catalog.resolve, now_ns=self._clock())
        shared = self._shared_sizes() if shared_size else {}
        rows = [{**views.summary(image, shared=shared.get(image.id, views.UNKNOWN)), "RepoTags": names} for image, names in chosen]
        if manifests:
            rows = [{**row, **self._manifests(image)} for row, (image, _) in zip(rows, chosen, strict=True)]
        return sorted(rows, key=lambda row: row["Created"], reverse=True)

    def measure(self) -> None:
        """Walks what has not been walked yet. Blocks."""
        self._usage.measure(self._snapshots.layer_of(row) for row in self._database.layers())

    def disk_usage(self) -> dict[str, Any]:
        shared = self._shared_sizes()
        used: dict[str, int] = {}
        for user in self._users():
            used[user.image_id] = used.get(user.image_id, 0) + 1
        images = self._catalog.all()
        rows = [views.summary(image, shared=shared[image.id], containers=used.get(image.id, 0)) for image in images]
        self.measure()
        return {"LayersSize": self._usage.total(), "Images": rows}

    def layers_size(self) -> int:
        """Bytes of the files of all layers."""
        return sum(row.size for row in self._database.layers())

    def _manifests(self, image: Image) -> dict[str, Any]:
        """What `manifests=1` adds; nothing in it for an image that was made here and has no manifest before it is pushed."""
        documents = [*filter(None, (image.manifest.digest if image.manifest else None, image.id))]
        packed = [blob.size for layer in image.layers for blob in self._tars.at_hand(layer)[:1]]
        content = sum(packed) + sum(self._blobs.size(digest) or 0 for digest in documents)
        users = [user.container_id for user in self._users() if user.image_id == image.id]
        return {"Manifests": views.manifests(image, content, users)}

    def _shared_sizes(self) -> dict[str, int]:
        counts = self._database.image_counts()
        return {image.id: sum(layer.size for layer in image.layers if counts.get(layer.chain_id, 0) > 1) for image in self._catalog.all()}
