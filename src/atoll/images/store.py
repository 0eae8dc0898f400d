"""The image store: one façade over references, content, layers, archives and registries.

Queries are quick and synchronous (SQLite in WAL, microseconds); what moves bytes is async and does its heavy part in threads. All of it is
called on one event loop. `users` tells which containers use which images, so that nothing under a container is taken away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from atoll.config import Instance
from atoll.errors import InvalidInput, NotFound, Unavailable
from atoll.images import hello, views
from atoll.images.archive_in import ArchiveReader
from atoll.images.blobs import Blobs
from atoll.images.bridge import consume
from atoll.images.catalog import Catalog, new_config
from atoll.images.census import Census
from atoll.images.collector import Collector, ContentLock, Leases
from atoll.images.database import Database
from atoll.images.durability import Durability
from atoll.images.layertar import LayerTars
from atoll.images.model import Descriptor, Image, Layer, Platform, Progress, Users, no_users, nothing
from atoll.images.reference import Reference, parse
from atoll.images.registry_auth import Credentials
from atoll.images.registry_session import RegistrySettings
from atoll.images.remote import Remote
from atoll.images.removal import Remover
from atoll.images.room import room
from atoll.images.saving import Saver
from atoll.images.sharing import engine_blobs, registry_root
from atoll.images.snapshots import Snapshots
from atoll.images.usage import Usage
from atoll.units import timestamp


class ImageStore:
    """The images of one instance. `open()` before use, `close()` after.

    `snapshots` has the layers, `leases` the holds on layers no image has, `blobs` content by digest, `tars` layers packed; `remote` is its
    side of registries.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        users: Users = no_users,
        settings: RegistrySettings | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._root = instance.content
        self._clock = clock
        self._users = users
        scratch = self._root / "tmp"
        self._scratch = scratch
        self._lock = ContentLock(self._root / "lock")
        self._database = Database(self._root / "images.db")
        self.blobs = Blobs(engine_blobs(instance), scratch, registry_root(instance) / "blobs")
        self.snapshots = Snapshots(self._root / "l", scratch, self._database)
        self.leases = Leases(self._database, self.snapshots)
        self._durability = Durability(self._root, self._database, self.blobs, self.snapshots)
        self.tars = LayerTars(self._database, self.blobs, self.snapshots)
        self._catalog = Catalog(self._database, self.blobs, self.snapshots, clock)
        self._collector = Collector(self._database, self.blobs, self.snapshots, scratch, users)
        self.remote = Remote(
            self._database,
            self.blobs,
            self.snapshots,
            self._catalog,
            self._collector,
            self.settle,
            settings or RegistrySettings.from_environment(),
        )
        usage = Usage(self._root, self.snapshots.directory)
        self._census = Census(self._database, self.blobs, self.snapshots, self._catalog, self.tars, usage, users, clock)
        self._saver = Saver(self._catalog, self.blobs, self.tars)
        self._remover = Remover(self._database, self._catalog, self._collector, users)

    def open(self) -> None:
        """Makes the directories and the database; takes away what an earlier crash left half made."""
        self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        alone = self._lock.open()
        self.blobs.create()
        self.snapshots.create()
        self._database.open()
        if alone:
            self._durability.restore()
            self._collector.recover()
            self._lock.share()

    def close(self) -> None:
        self._durability.close()
        self._database.close()
        self._lock.close()

    def working(self) -> AbstractContextManager[None]:
        """While inside, no layer is collected: hold it around a build or whatever commits layers before their image exists."""
        return self._collector.working()

    async def settle(self) -> None:
        """Returns when all content is on disk: what was made before survives a power failure."""
        await asyncio.to_thread(self._durability.settle)

    # naming --------------------------------------------------------------------------------------------------------------------------
    def resolve(self, reference: str) -> Image:
        """The image of a name, a digest reference, an id or the unique start of an id. Raises NotFound("No such image: x:latest")."""
        return self._catalog.resolve(reference)

    def find(self, reference: str) -> Image | None:
        """The same, None where there is none."""
        try:
            return self._catalog.resolve(reference)
        except NotFound:
            return None

    def all(self) -> list[Image]:
        """Every image, the last added first."""
        return self._catalog.all()

    def tag(self, reference: str, target: str) -> None:
        """Points the name `target` at the image; a name that stood elsewhere moves."""
        image = self.resolve(reference)
        name = parse(target)
        if name.digest:
            raise InvalidInput("refusing to create a tag with a digest reference")
        self._catalog.tag(image.id, name.with_default_tag())

    async def remove(self, reference: str, *, force: bool = False, prune: bool = True) -> list[dict[str, str]]:
        """Docker's rules: [{"Untagged": "x:latest"}, {"Deleted": "sha256:..."}]. Raises NotFound, Conflict."""
        records = self._remover.remove(reference, force=force, prune=prune)
        await asyncio.to_thread(self._collector.sweep)
        return records

    async def collect(self) -> None:
        """Gives back what no image, lease or container holds."""
        self._collector.collect()
        await asyncio.to_thread(self._collector.sweep)

    async def prune(
        self, *, dangling: bool = True, until_ns: int | None = None, labels: Sequence[str] = (), spared: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Removes images nobody uses (untagged ones only, unless `dangling` is False): {"ImagesDeleted": [...], "SpaceReclaimed": n}.

        Those with all of `labels` and none of `spared`, each "key" or "key=value".
        """
        before = self._census.layers_size()
        chosen = [
            image
            for image in self.all()
            if (not dangling or not image.repo_tags)
            and (until_ns is None or views.created_ns(image) < until_ns)
            and views.has_labels(image, labels)
            and not any(views.has_labels(image, [label]) for label in spared)
        ]
        records = self._remover.remove_unused(chosen)
        await asyncio.to_thread(self._collector.sweep)
        downloads = await asyncio.to_thread(self.blobs.partials.clear)
        return {"ImagesDeleted": records or None, "SpaceReclaimed": before - self._census.layers_size() + downloads}

    # what the Docker API shows -------------------------------------------------------------------------------------------------------
    def inspect(self, reference: str, *, manifests: bool = False) -> dict[str, Any]:
        """GET /images/{name}/json. Raises NotFound."""
        return self._census.inspect(self.resolve(reference), manifests=manifests)

    def summaries(
        self, *, filters: dict[str, list[str]] | None = None, shared_size: bool = False, manifests: bool = False
    ) -> list[dict[str, Any]]:
        """GET /images/json, newest first. Filters: reference, dangling, label, before, since, until. Raises InvalidInput."""
        return self._census.summaries(filters or {}, shared_size=shared_size, manifests=manifests)

    def history(self, reference: str) -> list[dict[str, Any]]:
        """GET /images/{name}/history. Raises NotFound."""
        return views.history(self.resolve(reference))

    async def measure(self) -> None:
        """Walks what `disk_usage` has not seen yet, in a thread."""
        await asyncio.to_thread(self._census.measure)

    def disk_usage(self) -> dict[str, Any]:
        """{"LayersSize": bytes, "Images": [summaries with SharedSize and Containers]} as /system/df has them.

        LayersSize is what du finds in the content's directory, packed blobs included; slow where `measure` was not awaited before.
        """
        return self._census.disk_usage()

    async def explain(self, reference: str) -> dict[str, Any]:
        """Why the image is as large as it is (why.py). Raises NotFound."""
        from atoll.images.why import explain

        image = self.resolve(reference)
        with self.working():
            return await asyncio.to_thread(explain, image)

    async def check(self, progress: Progress = nothing) -> list[str]:
        """Every fault of the content, in words; reads all of it. `progress` is called from a thread."""
        from atoll.images.check import check

        def note(digest: str) -> None:
            progress({"status": "Checking", "id": digest.removeprefix("sha256:")[:12]})

        with self.working():
            return await asyncio.to_thread(lambda: list(check(self._database, self.blobs, self.snapshots, note)))

    # making images -------------------------------------------------------------------------------------------------------------------
    def create_image(
        self, config: dict[str, Any], layers: Sequence[Layer], *, tags: Iterable[str] = (), parent: str | None = None
    ) -> Image:
        """Stores `config` with rootfs.diff_ids set from `layers` (bottom up) and gives the image its `tags`.

        `config` is an OCI image configuration: created, author, config {Env, Cmd...}, history; missing architecture and os become this
        machine's. The same config and layers give the same image. It survives a crash of ours at once, a power failure after `settle()`.
        """
        names = [parse(tag).with_default_tag() for tag in tags]
        document = new_config(config, [layer.diff_id for layer in layers])
        image_id = self._catalog.add(document, layers, parent=parent)
        for name in names:
            self._catalog.tag(image_id, name)
        return self._catalog.by_id(image_id)

    async def load(self, chunks: AsyncIterator[bytes], progress: Progress = nothing, *, platform: Platform | None = None) -> list[Image]:
        """Reads a docker-archive or OCI-layout tar, plain or compressed.

        Raises InvalidInput, DigestMismatch, LimitExceeded, NotFound where its images are not of `platform`.
        """
        loop = asyncio.get_running_loop()

        def note(diff_id: str, current: int, total: int) -> None:
            message = {"status": "Loading layer", "id": diff_id.removeprefix("sha256:")[:12]}
            loop.call_soon_threadsafe(progress, {**message, "progressDetail": {"current": current, "total": total}})

        reader = ArchiveReader(self._database, self.blobs, self.snapshots, self._catalog, platform)
        with room(), self.working():
            try:
                loaded = await consume(chunks, lambda source: reader.read(source, note))
            finally:
                self._collector.collect()
            await self.settle()
            images = []
            for image_id, names in loaded:
                for name in names:
                    self._catalog.tag(image_id, name)
                    progress({"stream": f"Loaded image: {name.familiar}\n"})
                if not names:
                    progress({"stream": f"Loaded image ID: {image_id}\n"})
                images.append(self._catalog.by_id(image_id))
        return images

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """A docker-archive tar that is an OCI layout as well. Raises NotFound before the first chunk.

        A name without a tag saves all tags of its repository, as Docker does; an id saves the image without names.
        """
        return self._saver.save(references)

    def archive(self, image: Image, names: Sequence[Reference]) -> AsyncIterator[bytes]:
        """The same of one image, under NAMES that it need not have here."""
        return self._saver.archive([(image, names)])

    async def archive_manifest(self, image: Image) -> Descriptor:
        """The manifest that `archive` has for it: where to find the image in there, or in what is made of it."""
        return await asyncio.to_thread(self._saver.manifest, image)

    def named(self, text: str) -> list[Image]:
        """What `save` takes a word for: one image, or all that a repository's name stands for. Raises NotFound."""
        return list({image.id: image for image, _ in self._saver.named(text)}.values())

    async def import_tar(
        self,
        chunks: AsyncIterator[bytes],
        *,
        target: str | None = None,
        message: str = "",
        config: dict[str, Any] | None = None,
        platform: Platform | None = None,
    ) -> Image:
        """An image of one layer from a root's tar (`docker import`). `config` is the runtime config (Cmd, Env...).

        `platform` is what the content is said to be of, by default this machine's.
        """
        name = parse(target) if target else None
        if name is not None and name.digest:
            raise InvalidInput("cannot import digest reference")
        with room(), self.working():
            layer = await consume(chunks, self.snapshots.unpack_now)
            created = timestamp(self._clock())
            step = {"created": created, "comment": message or "Imported from -"}
            image = self.create_image(
                {
                    "created": created,
                    "comment": step["comment"],
                    "config": config or {},
                    "history": [step],
                    **(platform.wire() if platform else {}),
                },
                [layer],
                tags=[str(name)] if name else [],
            )
            await self.settle()
        return image

    async def ensure_builtin(self, reference: str) -> Image | None:
        """Makes the built-in image of that name where there is one (hello-world) and gives it the name; None for all other names."""
        name = parse(reference)
        if not hello.is_hello(name):
            return None
        platform = Platform.of_host()
        with self.working():
            layer = await self.snapshots.unpack(hello.layer_tar(platform.architecture))
            image = self.create_image(hello.config(platform), [layer], tags=[str(replace(name, tag=name.tag or "latest"))])
            await self.settle()
        return image

    async def bootstrap(
        self,
        reference: str = "debian:bookworm",
        *,
        variant: str = "minbase",
        include: Sequence[str] = (),
        mirror: str | None = None,
        progress: Progress = nothing,
    ) -> Image:
        """A Debian or Ubuntu base image from its own signed packages, without any registry.

        Raises InvalidInput, NotSupported naming a missing tool, Unavailable naming the mirror.
        """
        from atoll.images import bootstrap

        name = parse(reference).with_default_tag()
        plan = await bootstrap.plan(name, variant=variant, include=include, mirror=mirror)
        progress({"status": f"Making {name.familiar} from {plan.sources[0].uri} ({plan.distribution.title} {plan.suite})"})
        with room(), self.working():
            layer = await bootstrap.make_layer(plan, self.snapshots, progress)
            image = self.create_image(plan.config(), [layer], tags=[str(name)])
            await self.settle()
        progress({"status": f"Status: Made {name.familiar} ({image.short_id}, {image.size / 1e6:.0f} MB)"})
        return image

    # registries ----------------------------------------------------------------------------------------------------------------------
    async def pull(
        self, reference: str, *, auth: dict[str, Any] | None = None, platform: Platform | None = None, progress: Progress = nothing
    ) -> Image:
        """`auth` is X-Registry-Auth decoded: username, password, identitytoken, registrytoken.

        Raises NotFound, Unavailable. Docker Hub's hello-world is made here when no registry answers for it, and the
        progress says so.
        """
        before = self.find(reference)
        try:
            image = await self.remote.pull(reference, Credentials.from_auth(auth), platform or Platform.of_host(), progress)
        except Unavailable as error:
            builtin = await self.ensure_builtin(reference) if platform is None else None
            if builtin is None:
                raise
            progress({"status": f"No registry answers ({error})"})
            progress({"status": f"Status: Made the built-in {builtin.repo_tags[0]}, which needs no registry"})
            return builtin
        name = parse(reference).with_default_tag().familiar
        fresh = before is None or before.id != image.id
        progress({"status": f"Status: {'Downloaded newer image' if fresh else 'Image is up to date'} for {name}"})
        return image

    async def push(self, reference: str, *, auth: dict[str, Any] | None = None, progress: Progress = nothing) -> Descriptor:
        """Uploads what the registry lacks and the manifest; the manifest's descriptor.

        Raises NotFound, Unauthenticated, Forbidden, Unavailable.
        """
        return await self.remote.push(reference, Credentials.from_auth(auth), progress)

    async def describe(self, reference: str, *, auth: dict[str, Any] | None = None) -> dict[str, Any]:
        """GET /distribution/{name}/json: what the registry has under a name, without pulling it."""
        return await self.remote.describe(reference, Credentials.from_auth(auth))

    async def login(self, auth: dict[str, Any]) -> dict[str, str]:
        """POST /auth: asks the registry of auth["serveraddress"] whether it knows us. Raises Unauthenticated, Unavailable."""
        return await self.remote.login(auth)
