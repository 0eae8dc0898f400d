"""--cache-from: caches in registries, in images, and with the client, opened for a build.

The builder's own cache is always asked first. A cache that cannot be read, or that another builder wrote, costs time only: the build goes
on, with a step that says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

from atoll.build.buildkit.board import Board
from atoll.build.buildkit.contentstore import ContentStore
from atoll.build.buildkit.sessions import Session
from atoll.build.cacheconfig import INLINE, MEDIA_TYPE, CacheConfig, read, read_inline
from atoll.build.cacheimport import CacheImport, Fetching, ImportedCache
from atoll.build.executor import credentials
from atoll.errors import AtollError, InvalidInput, NotSupported
from atoll.images import Descriptor, ImageStore, Platform, Progress, parse
from atoll.images.manifest import DEPTH_MAX, INDEXES, choose, descriptor, document, media_type, parse_index, parse_manifest
from atoll.images.pull import Source
from atoll.images.registry_auth import Credentials

REGISTRY, LOCAL = "registry", "local"
STORE = "local:"  # what clients call the content store of a local cache, its path behind it
UNCOMPRESSED = "containerd.io/uncompressed"  # the annotation of a layer with its diff id


async def open_imports(
    entries: Iterable[Any], images: ImageStore, session: Session, board: Board, stack: AsyncExitStack
) -> list[CacheImport]:
    """Those of the CacheOptionsEntry messages that can be read; they are there until STACK is closed."""
    found: list[CacheImport] = []
    for entry in entries:
        with suppress(AtollError), board.task(f"importing cache manifest from {_told(entry)}"):
            found.append(await _opened(entry, images, session, stack, _fetching(board, _told(entry))))
    return found


def _fetching(board: Board, name: str) -> Fetching:
    """A step of its own: one that is cached tells no more."""

    @contextmanager
    def fetching() -> Iterator[Progress]:
        with board.task(f"fetching layers of the cache {name}") as vertex:
            yield vertex.transfer

    return fetching


def described(entry: Any) -> str:
    """An entry of --cache-from or --cache-to, as it was given, but for what may be secret."""
    where = [f"{name}={entry.Attrs[name]}" for name in ("ref", "src", "dest") if name in entry.Attrs]
    return ",".join([f"type={entry.Type}", *where])


def _told(entry: Any) -> str:
    return str(entry.Attrs["ref"]) if entry.Type == REGISTRY and "ref" in entry.Attrs else described(entry)


async def _opened(entry: Any, images: ImageStore, session: Session, stack: AsyncExitStack, fetching: Fetching) -> CacheImport:
    match entry.Type:
        case "registry":
            return await _from_registry(_attribute(entry, "ref"), images, stack, fetching)
        case "local":
            place = _attribute(entry, "src")
            store = ContentStore(session, STORE + place)
            return ImportedCache(await _config(store, _attribute(entry, "digest"), place), images, store, fetching)
    raise NotSupported(f"cache import from {described(entry)} is not supported: type=registry and type=local are")


def _attribute(entry: Any, name: str) -> str:
    value = str(entry.Attrs.get(name, ""))
    if not value:
        raise InvalidInput(f"cache import from type={entry.Type} needs {name}=")
    return value


async def _from_registry(reference: str, images: ImageStore, stack: AsyncExitStack, fetching: Fetching) -> CacheImport:
    """An image that is here and has a cache in it needs no registry."""
    name = parse(reference).with_default_tag()
    image = images.find(str(name))
    if image is not None and INLINE in image.config:
        layers = [Descriptor("", layer.diff_id, layer.size) for layer in image.layers]
        return ImportedCache(read_inline(image.config, layers), images, None, fetching)
    auth = await credentials.get()(name.domain)
    registry = await stack.enter_async_context(images.remote.registry(name, Credentials.from_auth(auth)))
    config = await _config(registry, name.digest or name.tag or "", name.familiar)
    return ImportedCache(config, images, registry, fetching)


async def _config(source: Source, wanted: str, name: str) -> CacheConfig:
    """The cache that SOURCE has as WANTED: of its own, or in an image. Raises NotSupported, InvalidInput, and what SOURCE does."""
    for _ in range(DEPTH_MAX):
        fetched = await source.manifest(wanted)
        value = document(fetched.data, "the cache manifest")
        listed = _listed(value)
        config = next((one for one in listed if one.get("mediaType") == MEDIA_TYPE), None)
        if config is not None:
            layers = [one for one in listed if one is not config]
            return read(document(await source.document(descriptor(config)), "the cache configuration"), _blobs(layers))
        if media_type(value, fetched.descriptor.media_type) not in INDEXES:
            manifest = parse_manifest(value)
            return read_inline(document(await source.document(manifest.config), "the configuration"), manifest.layers)
        wanted = choose(parse_index(value), Platform.of_host(), name).digest
    raise InvalidInput(f"{name} nests its indexes too deeply")


def _listed(value: dict[str, Any]) -> list[dict[str, Any]]:
    """What a manifest or an index names: a cache may be either."""
    lists = [value.get(name) for name in ("layers", "manifests")]
    rows = [value.get("config"), *(one for rows in lists if isinstance(rows, list) for one in rows)]
    return [one for one in rows if isinstance(one, dict)]


def _blobs(listed: Iterable[dict[str, Any]]) -> dict[str, tuple[Descriptor, str]]:
    found = {}
    for one in listed:
        blob, notes = descriptor(one), one.get("annotations")
        found[blob.digest] = (blob, str(notes.get(UNCOMPRESSED)) if isinstance(notes, dict) else "")
    return found
