"""--cache-to: what a build has come through, for the next builder to begin with.

It goes to a registry, or to a directory of the client's, as an image manifest whose configuration is the cache's (or, where asked, as an
index); `inline` puts it into the image's own configuration, which the solver does. A cache that cannot be written is an error, since
somebody counts on it, unless ignore-error says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.build import cacheconfig
from atoll.build.buildkit.board import Board, Vertex
from atoll.build.buildkit.caches import LOCAL, REGISTRY, STORE, UNCOMPRESSED, described
from atoll.build.buildkit.contentstore import ContentStore
from atoll.build.buildkit.sessions import Session
from atoll.build.executor import credentials
from atoll.build.solver import Built
from atoll.errors import AtollError, InvalidInput, NotSupported
from atoll.images import Descriptor, ImageStore, Layer, parse
from atoll.images.model import DOCKER_INDEX, DOCKER_LAYER_GZIP, OCI_INDEX, OCI_MANIFEST, sha256
from atoll.images.registry_auth import Credentials
from atoll.images.threads import in_thread

INLINE = "inline"
PLACES = {REGISTRY: "ref", LOCAL: "dest", INLINE: ""}
MODES = frozenset({"min", "max"})
TRUE = frozenset({"1", "t", "true"})
MANIFEST_KEY = "cache.manifest"  # by which clients of a local cache learn what to note in its index.json


@dataclass(frozen=True, slots=True)
class CacheExport:
    """`place` is the reference or the directory. `mode` min has the result's own steps, max those it copied from as well."""

    kind: str
    place: str
    mode: str
    is_optional: bool
    like_oci: bool
    as_index: bool


def read_exports(entries: Iterable[Any], board: Board) -> list[CacheExport]:
    """Of the CacheOptionsEntry messages of a Solve. Raises NotSupported, InvalidInput."""
    found = []
    for entry in entries:
        try:
            found.append(_read(entry))
        except AtollError as error:
            if not _is_set(entry.Attrs, "ignore-error"):
                raise
            board.failed_task(f"exporting cache to {described(entry)}", str(error))
    return found


def _read(entry: Any) -> CacheExport:
    attributes = dict(entry.Attrs)
    if entry.Type not in PLACES:
        raise NotSupported(f"cache export to {described(entry)} is not supported: type=registry, type=local and type=inline are")
    place = attributes.get(PLACES[entry.Type], "")
    if PLACES[entry.Type] and not place:
        raise InvalidInput(f"cache export to type={entry.Type} needs {PLACES[entry.Type]}=")
    mode = attributes.get("mode") or "min"
    if mode not in MODES:
        raise InvalidInput(f"invalid mode={mode} of a cache export: it is min or max")
    if (compression := attributes.get("compression", "gzip")) != "gzip":
        raise NotSupported(f"cache export with compression={compression} is not supported: layers are packed with gzip")
    for name in ("compression-level", "force-compression", "registry.insecure"):
        if attributes.get(name, "false").lower() not in ("false", "0"):
            raise NotSupported(f"the attribute {name}={attributes[name]} of a cache export is not supported: leave it out")
    like_oci = _is_set(attributes, "oci-mediatypes", "true")
    as_index = not _is_set(attributes, "image-manifest", "true" if like_oci else "false")
    if not like_oci and not as_index:
        raise InvalidInput("a cache export with image-manifest=true needs oci-mediatypes=true")
    return CacheExport(entry.Type, place, mode, _is_set(attributes, "ignore-error"), like_oci, as_index)


def _is_set(attributes: Mapping[str, str], name: str, default: str = "") -> bool:
    return (attributes.get(name) or default).lower() in TRUE


async def export_caches(exports: Sequence[CacheExport], built: Built, images: ImageStore, session: Session, board: Board) -> dict[str, str]:
    """What the client is told of it. Raises what writing does."""
    told: dict[str, str] = {}
    for export in sorted(exports, key=lambda one: one.kind == LOCAL):  # the client looks for the manifest of a local one
        where = "registry" if export.kind == REGISTRY else "client directory"
        with suppress(*((AtollError,) if export.is_optional else ())):
            if export.kind == INLINE:
                continue
            with board.task(f"exporting cache to {where}") as vertex:
                manifest = await _export(export, built, images, session, vertex)
            told[MANIFEST_KEY] = orjson.dumps(manifest.wire()).decode()
    return told


async def _export(export: CacheExport, built: Built, images: ImageStore, session: Session, vertex: Vertex) -> Descriptor:
    """The manifest's descriptor."""
    steps = built.trail.all() if export.mode == "max" else built.trail.leading_to(built.key)
    chains = dict.fromkeys(passed.entry.chain for passed in steps if passed.entry.chain is not None)
    layers = list({layer.chain_id: layer for chain in chains for layer in images.snapshots.stack(chain)}.values())

    def documents(blobs: Sequence[Descriptor]) -> tuple[Descriptor, bytes, Descriptor, bytes]:
        config = cacheconfig.write(steps, layers, blobs)
        pointer = Descriptor(cacheconfig.MEDIA_TYPE, sha256(config), len(config))
        data = _manifest(export, pointer, layers, blobs)
        kind = OCI_MANIFEST if not export.as_index else OCI_INDEX if export.like_oci else DOCKER_INDEX
        return pointer, config, Descriptor(kind, sha256(data), len(data)), data

    with images.working():
        if export.kind == REGISTRY:
            name = parse(export.place).with_default_tag()
            auth = Credentials.from_auth(await credentials.get()(name.domain))
            async with images.remote.pushing(name, auth, vertex.transfer) as pusher:
                pointer, config, manifest, data = documents(await pusher.layers(layers, name))
                await pusher.document(pointer, config)
                vertex.status(f"writing config {pointer.digest}", done=True)
                await pusher.manifest(name, manifest, data)
        else:
            store = ContentStore(session, STORE + export.place)
            blobs = [await _written(layer, images, store, vertex) for layer in layers]
            pointer, config, manifest, data = documents(blobs)
            await store.write(pointer, iter([config]))
            vertex.status(f"writing config {pointer.digest}", done=True)
            await store.write(manifest, iter([data]))
    vertex.status(f"writing cache image manifest {manifest.digest}", done=True)
    await images.collect()  # what was packed for it
    return manifest


async def _written(layer: Layer, images: ImageStore, store: ContentStore, vertex: Vertex) -> Descriptor:
    blob = await in_thread(lambda: images.tars.packed(layer))
    vertex.status(f"writing layer {blob.digest}")
    await store.write(blob, images.blobs.chunks(blob.digest))
    vertex.status(f"writing layer {blob.digest}", blob.size, blob.size, done=True)
    return blob


def _manifest(export: CacheExport, config: Descriptor, layers: Sequence[Layer], blobs: Sequence[Descriptor]) -> bytes:
    rows = {
        blob.digest: {**(blob if export.like_oci else _as_docker(blob)).wire(), "annotations": {UNCOMPRESSED: layer.diff_id}}
        for layer, blob in zip(layers, blobs, strict=True)
    }
    if export.as_index:
        kind = OCI_INDEX if export.like_oci else DOCKER_INDEX
        return orjson.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [*rows.values(), config.wire()]})
    return orjson.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.wire(), "layers": list(rows.values())})


def _as_docker(blob: Descriptor) -> Descriptor:
    return Descriptor(DOCKER_LAYER_GZIP if blob.media_type.endswith("+gzip") else blob.media_type, blob.digest, blob.size)
