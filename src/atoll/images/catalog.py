"""Which image a name means, and what an image is: rows and config documents put together.

Lookup follows Docker: a whole id, then a name (with its default tag), then the unique start of an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from atoll.errors import AtollError, InvalidInput, NotFound
from atoll.images.blobs import Blobs
from atoll.images.database import Database, ImageRow
from atoll.images.model import Descriptor, Image, Layer, Platform
from atoll.images.reference import Reference, id_prefix, is_digest, parse, parse_canonical
from atoll.images.snapshots import Snapshots

AMBIGUOUS = 2
RESOLVED_MAX = 1000


class Catalog:
    def __init__(self, database: Database, blobs: Blobs, snapshots: Snapshots, clock: Callable[[], int]) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._clock = clock
        self._configs: dict[str, dict[str, Any]] = {}  # documents by digest: they never change
        self._resolved: dict[str, Image] = {}  # by what was asked for, as of `_generation`: every run of a container asks twice
        self._generation = (-1, -1)

    def resolve(self, text: str) -> Image:
        """Raises NotFound with Docker's words, InvalidInput for what can be no reference."""
        generation = self._database.generation
        if generation != self._generation or len(self._resolved) > RESOLVED_MAX:
            self._resolved, self._generation = {}, generation
        resolved = self._resolved
        image = resolved.get(text)
        if image is None:
            row = self._find(text)
            if row is None:
                raise NotFound(f"No such image: {_shown(text)}")
            image = resolved[text] = self.image(row)  # into what was there before the look: a change meanwhile has another
        return image

    def names_id(self, text: str, image: Image) -> bool:
        """Whether `text` gave the image by its id or the start of it, not by a name."""
        digits = id_prefix(text)
        return digits is not None and image.id.startswith(f"sha256:{digits}") and self._by_name(text) is None

    def _find(self, text: str) -> ImageRow | None:
        digits = id_prefix(text)
        if digits is not None and is_digest(f"sha256:{digits}"):
            # By its whole id a container still finds an image that was forced out from under it.
            return self._database.image(f"sha256:{digits}", or_hidden=text.startswith("sha256:"))
        found = self._by_name(text)
        if found is not None:
            return self._database.image(found)
        if digits is None:
            return None
        matches = self._database.images_with_prefix(digits)
        if len(matches) >= AMBIGUOUS:
            raise NotFound(f"No such image: {text}: as the beginning of an id it is ambiguous: give more of its digits")
        return self._database.image(matches[0]) if matches else None

    def _by_name(self, text: str) -> str | None:
        try:
            reference = parse(text)
        except InvalidInput:
            if id_prefix(text) is not None:
                return None
            raise
        return self._database.name(str(canonical(reference)))

    def image(self, row: ImageRow) -> Image:
        layers = tuple(self._snapshots.layer_of(layer) for layer in self._database.layers_of(row.id))
        return Image(
            row.id,
            self.config(row.id),
            layers,
            row.manifest,
            tuple(parse_canonical(name).familiar for name in self._database.names_of(row.id, digests=False)),
            tuple(parse_canonical(name).familiar for name in self._database.names_of(row.id, digests=True)),
            row.parent,
            row.added_ns,
            row.tagged_ns,
        )

    def by_id(self, image_id: str) -> Image:
        row = self._database.image(image_id)
        if row is None:
            raise NotFound(f"No such image: {image_id}")
        return self.image(row)

    def all(self) -> list[Image]:
        return [self.image(row) for row in self._database.images()]

    def config(self, image_id: str) -> dict[str, Any]:
        """The parsed configuration; shared, so never to be changed."""
        config = self._configs.get(image_id)
        if config is None:
            config = self._configs[image_id] = parse_config(self._blobs.read(image_id))
        return config

    def forget(self, image_id: str) -> None:
        self._configs.pop(image_id, None)

    def tag(self, image_id: str, reference: Reference) -> None:
        self._database.set_name(str(reference), image_id, is_digest=reference.digest is not None, now_ns=self._clock())

    def add(self, document: bytes, layers: Sequence[Layer], *, manifest: Descriptor | None = None, parent: str | None = None) -> str:
        """Makes the image of a config document visible; its id. Layers must be what the document's rootfs says."""
        config = parse_config(document)
        stated = config["rootfs"]["diff_ids"]
        if stated != [layer.diff_id for layer in layers]:
            raise AtollError("an image's layers differ from its configuration's rootfs.diff_ids")
        image_id = self._blobs.add(document)
        chains = [layer.chain_id for layer in layers]
        self._database.add_image(image_id, chains, manifest=manifest, parent=parent, now_ns=self._clock())
        return image_id


def canonical(reference: Reference) -> Reference:
    """What names are stored by: one tag, or one digest (which wins where both are written)."""
    if reference.digest:
        return Reference(reference.domain, reference.path, None, reference.digest)
    return reference.with_default_tag()


def parse_config(document: bytes) -> dict[str, Any]:
    """An image configuration with its rootfs. Raises InvalidInput."""
    try:
        config: dict[str, Any] = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the image configuration is not JSON: {error}") from None
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    if rootfs is None and isinstance(config, dict):
        rootfs = config["rootfs"] = {"type": "layers", "diff_ids": []}
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and isinstance(rootfs, dict):
        diff_ids = rootfs["diff_ids"] = []
    if not isinstance(diff_ids, list) or not all(isinstance(one, str) and is_digest(one) for one in diff_ids):
        raise InvalidInput("the image configuration has no proper rootfs.diff_ids")
    if not isinstance(config.get("config", {}), dict | None):
        raise InvalidInput("the image configuration's config is not an object")
    history = config.get("history")
    if history is not None and not (isinstance(history, list) and all(isinstance(one, dict) for one in history)):
        raise InvalidInput("the image configuration's history is not a list of objects")
    return config


def new_config(config: dict[str, Any], diff_ids: Iterable[str]) -> bytes:
    """The document of a configuration made here, with keys sorted: the same values give the same id."""
    host = Platform.of_host()
    document = {"architecture": host.architecture, "os": host.os, **config, "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
    if host.variant and document["architecture"] == host.architecture:
        document.setdefault("variant", host.variant)
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _shown(text: str) -> str:
    try:
        return parse(text).with_default_tag().familiar
    except InvalidInput:
        return text
