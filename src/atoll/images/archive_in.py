"""`docker load`: docker-archive (manifest.json) and OCI layout (index.json), each plain or compressed, in one pass over the stream.

Every member goes into the blob store under the digest of what it truly holds; names only map to digests, so no name in the archive can
reach a file. What no image ends up using is collected afterwards.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Iterator
from typing import Any

from atoll.errors import DigestMismatch, InvalidInput, LimitExceeded, NotFound
from atoll.images.ahead import ahead
from atoll.images.blobs import DOCUMENT_MAX, Blobs
from atoll.images.catalog import Catalog, canonical, parse_config
from atoll.images.compression import MAGIC_MAX, decompress, kind
from atoll.images.database import Database
from atoll.images.manifest import DEPTH_MAX, INDEXES, choose, document, media_type, parse_index, parse_manifest
from atoll.images.model import DOCKER_LAYER_GZIP, OCI_LAYER, Descriptor, Layer, Platform, chain_id
from atoll.images.reference import Reference, parse
from atoll.images.snapshots import Snapshots
from atoll.images.tar import Kind
from atoll.images.tarreader import TarReader

MEMBERS_MAX = 10_000
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_GZIP_TYPES = {"gzip": DOCKER_LAYER_GZIP, "zstd": f"{OCI_LAYER}+zstd", None: OCI_LAYER}

REPORT_S = 0.1  # between two words of one layer

Loaded = tuple[str, list[Reference]]
Note = Callable[[str, int, int], None]


class ArchiveReader:
    """One load, of images of `platform` only where one is given. `read` blocks: run it in a thread."""

    def __init__(self, database: Database, blobs: Blobs, snapshots: Snapshots, catalog: Catalog, platform: Platform | None = None) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._catalog = catalog
        self._platform = platform
        self._members: dict[str, tuple[str, int]] = {}
        self._aliases: dict[str, str] = {}

    def read(self, chunks: Iterator[bytes], note: Note) -> list[Loaded]:
        """The ids of the images found, each with the names it is to get. `note(diff_id, current, total)` tells of a new layer's bytes.

        Raises InvalidInput, DigestMismatch, LimitExceeded, NotFound for another platform than asked for.
        """
        self._store_members(chunks)
        if "manifest.json" in self._members:
            return [self._docker(entry, note) for entry in self._manifest_json()]
        if "index.json" in self._members:
            index = document(self._document("index.json"), "index.json")
            return self._oci(index, note)
        raise InvalidInput("the archive is neither a saved image nor an OCI layout: it has no manifest.json and no index.json")

    def _store_members(self, chunks: Iterator[bytes]) -> None:
        with ahead(decompress(chunks)) as plain:
            self._store_all(TarReader(plain))

    def _store_all(self, reader: TarReader) -> None:
        for entry in reader:
            if len(self._members) + len(self._aliases) > MEMBERS_MAX:
                raise LimitExceeded(f"the archive has more than {MEMBERS_MAX} members")
            name = posixpath.normpath(entry.name.decode("utf-8", "surrogateescape"))
            if entry.kind is Kind.FILE:
                if entry.sparse is not None:
                    raise InvalidInput(f"archive member {entry} is a sparse file")
                with self._blobs.writer() as writer:
                    for piece in reader.data():
                        writer.write(piece)
                    self._members[name] = (writer.commit(), writer.size)
            elif entry.kind in (Kind.SYMLINK, Kind.LINK):
                # Old docker save writes a layer once and links to it.
                base = posixpath.dirname(name) if entry.kind is Kind.SYMLINK else ""
                self._aliases[name] = posixpath.normpath(posixpath.join(base, entry.link.decode("utf-8", "surrogateescape")))
        reader.drain()

    def _member(self, name: str, whose: str) -> tuple[str, int]:
        """Digest and size of a member. Raises InvalidInput for names that climb or are absolute, and for missing ones."""
        path = posixpath.normpath(name)
        target = self._aliases.get(path, path)
        for one in (path, target):
            if one.startswith(("/", "../")) or one == "..":
                raise InvalidInput(f"{whose} names {name!r}, which lies outside the archive: refused")
        found = self._members.get(target)
        if found is None:
            raise InvalidInput(f"{whose} names {name!r}, which is not in the archive")
        return found

    def _document(self, name: str) -> bytes:
        digest, size = self._member(name, "the archive")
        if size > DOCUMENT_MAX:
            raise LimitExceeded(f"{name} in the archive is larger than a document may be")
        return self._blobs.read(digest)

    # docker-archive ------------------------------------------------------------------------------------------------------------------
    def _manifest_json(self) -> list[dict[str, Any]]:
        import orjson

        try:
            entries = orjson.loads(self._document("manifest.json"))
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"manifest.json is not JSON: {error}") from None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidInput("manifest.json is not a list of images")
        return entries

    def _docker(self, entry: dict[str, Any], note: Note) -> Loaded:
        config_name, layer_names, tags = entry.get("Config"), entry.get("Layers") or [], entry.get("RepoTags") or []
        if not isinstance(config_name, str) or not all(isinstance(one, str) for one in (*layer_names, *tags)):
            raise InvalidInput("manifest.json holds an image without a proper Config, Layers and RepoTags")
        members = [self._member(name, "manifest.json") for name in layer_names]
        config_digest, _ = self._member(config_name, "manifest.json")
        names = [canonical(parse(tag)) for tag in tags]
        return self._image(config_digest, [Descriptor("", digest, size) for digest, size in members], None, note), names

    # OCI layout ----------------------------------------------------------------------------------------------------------------------
    def _oci(self, index: dict[str, Any], note: Note) -> list[Loaded]:
        loaded = []
        for line in parse_index(index):
            names = [canonical(parse(line.annotations[key])) for key in NAME_ANNOTATIONS if "/" in line.annotations.get(key, "")][:1]
            pointer = line.descriptor
            value = self._pointed(pointer)
            for _ in range(DEPTH_MAX):
                if media_type(value, pointer.media_type) not in INDEXES:
                    break
                pointer = choose(parse_index(value), self._platform or Platform.of_host(), str(names[0]) if names else pointer.digest)
                value = self._pointed(pointer)
            else:
                raise InvalidInput("the OCI layout nests its indexes too deeply")
            manifest = parse_manifest(value)
            self._pointed_blob(manifest.config)
            for layer in manifest.layers:
                self._pointed_blob(layer)
            kept = Descriptor(media_type(value, pointer.media_type), pointer.digest, pointer.size)
            loaded.append((self._image(manifest.config.digest, list(manifest.layers), kept, note), names))
        if not loaded:
            raise InvalidInput("the OCI layout holds no image")
        return loaded

    def _pointed(self, pointer: Descriptor) -> dict[str, Any]:
        self._pointed_blob(pointer)
        return document(self._blobs.read(pointer.digest), f"blob {pointer.digest}")

    def _pointed_blob(self, pointer: Descriptor) -> None:
        digest, size = self._member("blobs/" + pointer.digest.replace(":", "/"), "the OCI layout")
        if (digest, size) != (pointer.digest, pointer.size):
            raise DigestMismatch(f"content of {pointer.digest} in the archive is in truth {digest} with {size} bytes: refused")

    # images --------------------------------------------------------------------------------------------------------------------------
    def _image(self, config_digest: str, blobs: list[Descriptor], manifest: Descriptor | None, note: Note) -> str:
        config = self._blobs.read(config_digest)
        parsed = parse_config(config)
        own = Platform.of_config(parsed)
        if self._platform is not None and not own.serves(self._platform):
            raise NotFound(f"image {config_digest} does not match the specified platform: wanted {self._platform}, actual: {own}")
        diff_ids = parsed["rootfs"]["diff_ids"]
        if len(diff_ids) != len(blobs):
            raise InvalidInput(f"the image's configuration has {len(diff_ids)} layers where the archive lists {len(blobs)}")
        layers: list[Layer] = []
        parent: str | None = None
        for diff_id, blob in zip(diff_ids, blobs, strict=True):
            layer = self._snapshots.find(chain_id(parent, diff_id))
            if layer is None:
                layer = self._snapshots.unpack_blob_now(self._told(blob, diff_id, note), parent, diff_id)
                self._database.add_layer_blob(diff_id, self._typed(blob))
                note(diff_id, blob.size, blob.size)
            layers.append(layer)
            parent = layer.chain_id
        return self._catalog.add(config, layers, manifest=manifest)

    def _told(self, blob: Descriptor, diff_id: str, note: Note) -> Iterator[bytes]:
        """The blob's bytes; now and then how many have been read."""
        current, last = 0, 0.0
        for chunk in self._blobs.chunks(blob.digest):
            if (now := time.monotonic()) - last >= REPORT_S:
                last = now
                note(diff_id, current, blob.size)
            yield chunk
            current += len(chunk)

    def _typed(self, blob: Descriptor) -> Descriptor:
        if blob.media_type:
            return blob
        start = next(self._blobs.chunks(blob.digest), b"")[:MAGIC_MAX]
        return Descriptor(_GZIP_TYPES.get(kind(start), OCI_LAYER), blob.digest, blob.size)
