"""Pull and push as the store does them: which registry is asked, under which names things end up, and what an error means in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from atoll.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from atoll.images.blobs import Blobs
from atoll.images.catalog import Catalog
from atoll.images.collector import Collector
from atoll.images.database import Database
from atoll.images.layertar import LayerTars
from atoll.images.manifest import INDEXES, document, media_type, parse_index, parse_manifest
from atoll.images.model import Descriptor, Image, Layer, Platform, Progress
from atoll.images.pull import Pulled, Puller, Source, first_cause
from atoll.images.push import Pusher
from atoll.images.reference import Reference, parse
from atoll.images.registry import Registry, check_login
from atoll.images.registry_auth import Credentials
from atoll.images.registry_session import RegistryError, RegistrySettings
from atoll.images.room import room
from atoll.images.snapshots import Snapshots


class Remote:
    """The store's side of registries."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        snapshots: Snapshots,
        catalog: Catalog,
        collector: Collector,
        settle: Callable[[], Awaitable[None]],
        settings: RegistrySettings,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._snapshots = snapshots
        self._catalog = catalog
        self._collector = collector
        self._settle = settle
        self._settings = settings

    async def pull(self, text: str, credentials: Credentials, platform: Platform, progress: Progress) -> Image:
        """A registry's mirrors are asked first, without our credentials for it, then the registry itself."""
        name = parse(text).with_default_tag()
        for mirror in self._settings.mirrors_of(name.domain):
            try:
                return await self._pull_from(Registry(name, Credentials(), self._settings, base=mirror), name, platform, progress)
            except (Unavailable, NotFound, Unauthenticated, Forbidden, RegistryError) as error:
                progress({"status": f"Mirror {mirror}: {error}"})
        return await self._pull_from(Registry(name, credentials, self._settings), name, platform, progress)

    async def _pull_from(self, registry: Registry, name: Reference, platform: Platform, progress: Progress) -> Image:
        with room(), self._collector.working():
            pulled = await self._fetch(registry, name, platform, progress)
            await self._settle()
            self._catalog.tag(pulled.image_id, name.with_digest(pulled.digest))
            if name.digest is None:
                self._catalog.tag(pulled.image_id, name)
        await asyncio.to_thread(self._collector.sweep)
        progress({"status": f"Digest: {pulled.digest}"})
        return self._catalog.by_id(pulled.image_id)

    async def _fetch(self, registry: Registry, name: Reference, platform: Platform, progress: Progress) -> Pulled:
        try:
            async with registry:
                pulled = await self._puller(registry, progress).pull(name, platform)
            for blob in pulled.blobs:
                self._database.add_source(blob.digest, name.name)
            return pulled
        except BaseExceptionGroup as group:
            raise first_cause(group) from group
        finally:
            self._collector.collect()  # when nothing is at work any more: layers of a pull that failed

    def _puller(self, source: Source, progress: Progress) -> Puller:
        return Puller(self._database, self._blobs, self._snapshots, self._catalog, source, progress)

    def registry(self, name: Reference, credentials: Credentials) -> Registry:
        """To read from; a context manager."""
        return Registry(name, credentials, self._settings)

    async def fetch_image(self, source: Source, name: Reference, platform: Platform, progress: Progress) -> Image:
        """What SOURCE has as NAME, which gets no name here: hold it meanwhile (`working`). Raises what `pull` does."""
        return self._catalog.by_id((await self._puller(source, progress).pull(name, platform)).image_id)

    async def fetch_layers(self, source: Source, blobs: Sequence[Descriptor], diff_ids: Sequence[str], progress: Progress) -> list[Layer]:
        """A stack of layers, from the lowest up; those that are here already are not asked for. Hold them meanwhile (`working`).

        Raises NotFound, DigestMismatch, InvalidInput, Unavailable.
        """
        return await self._puller(source, progress).layers(blobs, diff_ids)

    async def push(self, text: str, credentials: Credentials, progress: Progress) -> Descriptor:
        name = parse(text)
        if name.digest:
            name = replace(name, digest=None)
        name = name.with_default_tag()
        progress({"status": f"The push refers to repository [{name.name}]"})
        try:
            image = self._catalog.resolve(str(name))
        except NotFound:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}") from None
        async with self.pushing(name, credentials, progress) as pusher:
            pushed = await pusher.push(image, name)
        self._catalog.tag(image.id, name.with_digest(pushed.digest))
        progress({"status": f"{name.tag}: digest: {pushed.digest} size: {pushed.size}"})
        progress({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": pushed.digest, "Size": pushed.size}})
        return pushed

    @asynccontextmanager
    async def pushing(self, name: Reference, credentials: Credentials, progress: Progress) -> AsyncIterator[Pusher]:
        """Uploads to a repository. Raises Unauthenticated, Forbidden, Unavailable, RegistryError."""
        tars = LayerTars(self._database, self._blobs, self._snapshots)
        with room(), self._collector.working():
            try:
                async with Registry(name, credentials, self._settings, push=True) as registry:
                    yield Pusher(self._database, self._blobs, tars, registry, progress)
            except BaseExceptionGroup as group:
                raise first_cause(group) from group
            finally:
                self._collector.collect()  # what was compressed for the push: it can be made again

    async def describe(self, text: str, credentials: Credentials) -> dict[str, Any]:
        """{"Descriptor": {...}, "Platforms": [{"os", "architecture", "variant"}]} of what a name points to in its registry."""
        name = parse(text).with_default_tag()
        async with Registry(name, credentials, self._settings) as registry:
            fetched = await registry.manifest(name.digest or name.tag or "")
            value = document(fetched.data, "the manifest")
            kind = media_type(value, fetched.descriptor.media_type)
            if kind in INDEXES:
                platforms = [choice.platform for choice in parse_index(value) if choice.platform]
            else:
                config = document(await registry.document(parse_manifest(value).config), "the configuration")
                platforms = [Platform.of_config(config)]
        return {
            "Descriptor": replace(fetched.descriptor, media_type=kind).wire(),
            "Platforms": [platform.wire() for platform in platforms],
        }

    async def login(self, auth: dict[str, Any]) -> dict[str, str]:
        return await check_login(auth, self._settings)
