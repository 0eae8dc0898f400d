"""Everything of a node that has joined a cluster: registration, pods, the kubelet's API, services, DNS, the control plane's mirror pods.

Lives in the engine's process and loop. `start` answers once the node is registered and Ready; `stop` leaves containers running, `leave`
takes all of the cluster's away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from atoll.client.factory import InformerFactory
from atoll.client.http import HttpClient
from atoll.client.recorder import Recorder
from atoll.client.resources import ENDPOINT_SLICES, SERVICES
from atoll.config import Instance
from atoll.engine import Engine
from atoll.errors import AtollError, NotSupported, Unavailable
from atoll.node.config import NodeConfig
from atoll.node.directories import pods_directory
from atoll.node.kubelet_api.server import KubeletServer
from atoll.node.machine import Machine
from atoll.node.mirror import MirrorPods
from atoll.node.nameserver import NameServer
from atoll.node.objects import WatchedObjects
from atoll.node.pods.kubelet import Kubelet
from atoll.node.pods.live import Surroundings
from atoll.node.pods.pulls import Pulls
from atoll.node.pods.sandbox import Sandboxes
from atoll.node.proxy import ServiceProxy
from atoll.node.proxy.proxy import ensure_service_route
from atoll.node.registration import Registration
from atoll.node.volumes import Volumes
from atoll.node.volumes.volumes import unmount_below

REGISTER_S = 30.0  # for the API server to answer a node that joins
REGISTER_STEP_S = 0.5
LAST_WORD_S = 3.0

log = logging.getLogger(__name__)


class NodeAgent:
    """One joined cluster. `start`, then `stop` or `leave`, once each."""

    def __init__(self, engine: Engine, instance: Instance, config: NodeConfig) -> None:
        self.config = config
        self._engine = engine
        self._instance = instance
        self._tasks: list[asyncio.Task[None]] = []
        access = config.access()
        self._client = HttpClient(config.server, access.ssl_context(), user_agent="atoll-kubelet")
        self._informers = InformerFactory(self._client)
        self._informers.informer(SERVICES)
        self._informers.informer(ENDPOINT_SLICES)
        self._recorder = Recorder(self._client, "kubelet", host=config.name)
        self._objects = WatchedObjects(self._client)
        self._machine = Machine(instance.home)
        self._sandboxes = Sandboxes(instance, engine.networks, config)
        self._volumes = Volumes(instance, self._client, self._objects, self._machine.allocatable)
        self.kubelet = Kubelet(
            Surroundings(
                instance=instance,
                config=config,
                engine=engine,
                client=self._client,
                informers=self._informers,
                recorder=self._recorder,
                objects=self._objects,
                volumes=self._volumes,
                sandboxes=self._sandboxes,
                pulls=Pulls(engine.images),
                machine=self._machine,
            )
        )
        self._server = KubeletServer(engine, self.kubelet, config)
        self._proxy: ServiceProxy | None = None
        self._names = NameServer(instance, engine.networks, config) if config.cluster_dns else None
        self._registration: Registration | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises Unavailable where the API server does not answer, StatusError where it refuses the node."""
        bridge, subnet = await self._sandboxes.ensure_network()
        self.port = await self._server.start()
        self._registration = registration = Registration(
            self._client, self.config, self._machine, self._engine.images, pod_cidr=subnet, port=self.port
        )
        node = await self._register(registration)
        self._start_services(bridge)
        address = await self._start_names()
        mirror = MirrorPods(self._client, self.config, node, dns_address=address, node_log=self._instance.logs / "engine.log")
        self._server.mirror = mirror
        for name, work in (
            ("informers", self._informers.run()),
            ("events", self._recorder.run()),
            ("heartbeat", registration.run(node)),
            ("mirror pods", mirror.run()),
            ("kubelet", self.kubelet.run()),
        ):
            self._spawn(name, work)
        log.info("node %s has joined %s; its kubelet's API is on port %d", self.config.name, self.config.server, self.port)

    def _start_services(self, bridge: str) -> None:
        try:
            self._proxy = ServiceProxy(self._instance, node_name=self.config.name, bridges=(bridge,))
        except NotSupported as error:
            log.warning("services have no addresses on this node: %s", error)
            return
        self._spawn("services", self._proxy.run(self._informers))
        try:
            ensure_service_route(self.config.service_cidr, bridge)
        except AtollError as error:
            log.warning("no route to services %s: %s", self.config.service_cidr, error)

    async def _start_names(self) -> str:
        if self._names is None:
            return ""
        address = await self._names.start()
        self._spawn("dns", self._names.run(self._informers))
        return address

    async def _register(self, registration: Registration) -> dict[str, Any]:
        """A control plane that is just starting is waited for."""
        end = asyncio.get_running_loop().time() + REGISTER_S
        while True:
            try:
                return await registration.register()
            except Unavailable:
                if asyncio.get_running_loop().time() > end:
                    raise
            await asyncio.sleep(REGISTER_STEP_S)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception:
                log.exception("%s of node %s has failed", name, self.config.name)

        self._tasks.append(asyncio.create_task(guarded(), name=f"node/{name}"))

    async def stop(self) -> None:
        """The agent goes, all it keeps stays: containers run, services lead, until another daemon takes over. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._server.close()
        await self._objects.close()
        with contextlib.suppress(AtollError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self._recorder.flush()
        if self._names is not None:
            self._names.close()
        if self._proxy is not None:
            self._proxy.close()
        await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the API server was there a heartbeat ago. Where not, watches may be waiting out a long back-off."""
        return self._registration is not None and self._registration.is_heard

    async def rest(self) -> None:
        """Stop, as the engine does with all its containers: rules and mounts go too. The next daemon makes them again."""
        await self._say_goodbye()
        self._remove_services()
        await self.stop()
        await asyncio.to_thread(unmount_below, pods_directory(self._instance))

    async def leave(self) -> None:
        """Stop, and take away all that is the cluster's on this machine."""
        await self._say_goodbye()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.kubelet.evacuate()
        if self._names is not None:
            await self._names.remove()
        await self._sandboxes.remove_network()
        self._remove_services()
        await self.stop()

    async def _say_goodbye(self) -> None:
        with contextlib.suppress(AtollError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                if self._registration is not None:
                    await self._registration.tell_leaving()

    def _remove_services(self) -> None:
        """The rules, those of a daemon before this one included."""
        try:
            self._proxy = self._proxy or ServiceProxy(self._instance)
        except NotSupported:
            return  # then none were made
        self._proxy.destroy()

    def view(self) -> dict[str, Any]:
        """GET /atoll/node."""
        return {
            "joined": True,
            "name": self.config.name,
            "server": self.config.server,
            "address": self.config.address,
            "kubeletPort": self.port,
            "pods": len(self.kubelet.pods()),
            "dns": self._names.address if self._names is not None else "",
        }
