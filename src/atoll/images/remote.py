"""Pull and push as the store does them: which registry is asked, under which names things end up, and what an error means in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from atoll.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from atoll.images.blobs import Blobs
from atoll.images.catalog import Catalog
from atoll.images.collector import Collector
from atoll.images.database import Database
from atoll.images.layertar import LayerTars
from atoll.images.manifest import INDEXES, document, media_type, parse_index, parse_manifest
from atoll.images.model import Descriptor, Image, Platform, Progress
from atoll.images.pull import Pulled, Puller, first_cause
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
                puller = Puller(self._database, self._blobs, self._snapshots, self._catalog, registry, progress)
                return await puller.pull(name, platform)
        except BaseExceptionGroup as group:
            raise first_cause(group) from group
        finally:
            self._collector.collect()  # when nothing is at work any more: layers of a pull that failed

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
        tars = LayerTars(self._database, self._blobs, self._snapshots)
        with room(), self._collector.working():
            try:
                async with Registry(name, credentials, self._settings, push=True) as registry:
                    pushed = await Pusher(self._database, self._blobs, tars, registry, progress).push(image, name)
            except BaseExceptionGroup as group:
                raise first_cause(group) from group
            self._catalog.tag(image.id, name.with_digest(pushed.digest))
            self._collector.collect()  # what was compressed for the push: it can be made again
        progress({"status": f"{name.tag}: digest: {pushed.digest} size: {pushed.size}"})
        progress({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": pushed.digest, "Size": pushed.size}})
        return pushed

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
