"""`Engine`: everything of one instance, wired together; the face that the daemon serves and the kubelet calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from atoll.config import Instance
from atoll.engine.building import BuildExecutor
from atoll.engine.containers.changes import Changes
from atoll.engine.containers.containers import Containers
from atoll.engine.containers.foresight import Foresight
from atoll.engine.containers.layers import make_init_layer
from atoll.engine.containers.lifecycle import NotModified
from atoll.engine.containers.networking import Networker
from atoll.engine.containers.record import Container, Status
from atoll.engine.containers.recovery import recover, watch_keeper
from atoll.engine.containers.registry import Registry
from atoll.engine.db import Database
from atoll.engine.events import Events
from atoll.engine.execs import Execs
from atoll.engine.services import Services
from atoll.engine.settings import Settings
from atoll.errors import NotFound, Unavailable
from atoll.http import Router
from atoll.images import ImageStore, ImageUser
from atoll.network import Network, Networks
from atoll.runtime import Runtime
from atoll.runtime.trust import Trust, host_trust
from atoll.volumes import Volumes

if TYPE_CHECKING:
    from atoll.build.builder import Builder

log = logging.getLogger(__name__)


class Engine:
    """`start()` before use, `close()` after; containers outlive both."""

    def __init__(self, instance: Instance, settings: Settings | None = None) -> None:
        self.instance = instance
        instance.home.mkdir(parents=True, exist_ok=True, mode=0o710)
        own = {instance.run: 0o700, instance.containers: 0o710, instance.logs: 0o700, instance.content: 0o700, instance.network: 0o700}
        for path, mode in own.items():
            path.mkdir(exist_ok=True, mode=mode)
            path.chmod(mode)  # whatever a home of the user's own, or an older Atoll, has let others see
        chosen = settings or Settings.load(instance.home / "engine.toml")
        self._database = Database(instance.database)
        registry = Registry(self._database, instance.containers)
        self.events = Events()
        self.images = ImageStore(instance, users=self._image_users)
        self.networks = Networks(instance, on_event=self._network_event)
        self.volumes = Volumes(instance, used_by=self._volume_users)
        self.runtime = Runtime(instance)
        self.services = Services(
            instance=instance,
            settings=chosen,
            trust=host_trust() if chosen.trust_host else Trust(),
            events=self.events,
            registry=registry,
            runtime=self.runtime,
            images=self.images,
            networks=self.networks,
            volumes=self.volumes,
            networker=Networker(self.networks, instance.run / "netns" / "engine", registry.get),
            foresight=Foresight(self.runtime),
        )
        self.registry = registry
        self.containers = Containers(self.services)
        self.changes = Changes(self.services, self.containers.lifecycle)
        self.exec = Execs(self.services)
        self._executor = BuildExecutor(self.services, self.containers)
        self._watcher: asyncio.Task[None] | None = None
        self.router = Router()
        from atoll.engine.routes import add_routes

        add_routes(self.router, self)

    @cached_property
    def builder(self) -> Builder:
        """Loaded with the first build: many engines never see one."""
        from atoll.build.builder import Builder

        return Builder(self.instance.home / "build", self.instance.content / "tmp", self.images, self._executor)

    async def start(self) -> None:
        """Opens the state and connects the keeper; finishes or undoes what was cut short; starts what policies say."""
        self.images.open()
        make_init_layer(self.services.init_layer)
        self.registry.load()
        await self._connect_keeper()
        losses = await recover(self.services, self.containers.lifecycle)
        await self._executor.remove_leftovers()
        watching = watch_keeper(self.services, self.containers.lifecycle, losses, self.exec.on_other_keeper)
        self._watcher = asyncio.create_task(watching, name="watch the keeper")

    async def _connect_keeper(self) -> None:
        """A keeper of older code is followed by one of ours; where that fails, the older one is driven on."""
        try:
            await self.runtime.renew()
        except Unavailable as error:
            log.warning("the keeper is not renewed: %s", error)
            await self.runtime.connect()

    async def close(self) -> None:
        """Ends the daemon's part; containers run on."""
        self.events.close()
        await self._end_watch()
        await self.containers.lifecycle.close()
        await self.networks.close()
        await self.runtime.close()
        if "builder" in self.__dict__:  # cached_property's place: it has been used
            self.builder.close()
        self.images.close()
        self._database.close()

    async def shut_down(self) -> None:
        """Stops every container and takes away all that the instance has in the kernel, the keeper too.

        What is on disk stays; containers whose policy says so start again with the next engine.
        """
        await asyncio.gather(*(self._rest(container) for container in self.registry if container.is_up))
        await self.networks.destroy()
        await self._end_watch()
        await self.runtime.stop_keeper()

    async def _end_watch(self) -> None:
        """Before the keeper is let go on purpose."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def _rest(self, container: Container) -> None:
        by_user = container.record.stopped_by_user
        with contextlib.suppress(NotModified):
            await self.containers.lifecycle.stop(container)
        container.save(stopped_by_user=by_user)

    async def destroy(self) -> None:
        """Takes away every container and all that the instance has in the kernel, the keeper too. For tests and for good-byes."""
        for container in self.registry:
            with contextlib.suppress(NotFound):  # it has just taken itself away (--rm)
                await self.containers.remove(container.id, force=True, volumes=True)
        await self.networks.destroy()
        await self._end_watch()
        await self.runtime.stop_keeper()

    def _image_users(self) -> Iterator[ImageUser]:
        for container in self.registry:
            record = container.record
            is_running = container.is_up or container.status in {Status.STARTING, Status.RESTARTING}
            yield ImageUser(record.id, record.image, record.image_name, is_running)
            for row in record.mounts:
                if row["type"] == "image":
                    yield ImageUser(record.id, row["image"], row["source"], is_running)

    def _volume_users(self, name: str) -> list[str]:
        return [item.id for item in self.registry if any(row["name"] == name for row in item.record.mounts)]

    def _network_event(self, action: str, network: Network, attributes: dict[str, str]) -> None:
        self.events.publish("network", action, network.id, {"name": network.name, "type": network.driver, **attributes})
