"""Joining and leaving a cluster, over the engine's socket: POST /atoll/node/join, POST /atoll/node/leave, GET /atoll/node.

What a node has joined is kept, and a restarted daemon takes it up again by itself: at once where the API server answers, else as soon as it
does; the engine's socket is never kept waiting for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import orjson

from atoll.config import Instance
from atoll.engine import Engine
from atoll.errors import AtollError, Conflict, InvalidInput
from atoll.http import Request, Response, Router, json_response
from atoll.node.config import NodeConfig, state_file

if TYPE_CHECKING:
    from atoll.node.agent import NodeAgent

RETRY_S = 5.0

log = logging.getLogger(__name__)


class Membership:
    """The node's place in a cluster, none at first. Modules of the kubelet are loaded when it joins: an engine alone pays nothing."""

    def __init__(self, engine: Engine, instance: Instance) -> None:
        self._engine = engine
        self._instance = instance
        self._agent: NodeAgent | None = None
        self._lock = asyncio.Lock()
        self._resuming: asyncio.Task[None] | None = None

    def add_routes(self, router: Router) -> None:
        router.add("POST", "/atoll/node/join", self.join)
        router.add("POST", "/atoll/node/leave", self.leave)
        router.add("GET", "/atoll/node", self.show)

    async def join(self, request: Request) -> Response:
        """Join the cluster the body names; answers when the node is registered.

        Body: server (URL of the API), ca, certificate and key (PEM; the client is system:node:<name> of system:nodes), servingCertificate
        and servingKey (PEM, of the kubelet's own API), name, address (the node's InternalIP), and optionally serviceCIDR, clusterDNS,
        clusterDomain, controlPlaneLog (a node with it shows the control plane as mirror pods), kubeletPort (0 picks a free one; another is
        picked where it is taken). Joining again is no error: it takes up new certificates, and a control plane that was away is looked for
        at once. Another cluster must be left first (409).
        """
        try:
            config = NodeConfig.from_request(orjson.loads(await request.body()))
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"the body of a join must be JSON: {error}") from error
        await self._stop_resuming()
        async with self._lock:
            if self._agent is not None:
                if self._agent.config.server != config.server or self._agent.config.name != config.name:
                    raise Conflict(f"this node is in the cluster of {self._agent.config.server} already: leave it first")
                if self._agent.config == config and self._agent.is_connected:
                    return json_response(self._agent.view())
                await self._agent.stop()
                self._agent = None
            self._agent = await self._begin(config)
            config.save(self._instance)
            return json_response(self._agent.view())

    async def leave(self, request: Request) -> Response:
        """End and remove all pods, their networks and mounts, and forget the cluster. No cluster is no error."""
        await request.body()
        await self._stop_resuming()  # it may hold the lock for as long as the API server is away
        async with self._lock:
            agent = self._agent or self._former()
            if agent is not None:
                await agent.leave()
                self._agent = None
            state_file(self._instance).unlink(missing_ok=True)
        return json_response({"joined": False})

    async def show(self, _: Request) -> Response:
        return json_response(self._agent.view() if self._agent is not None else {"joined": False})

    async def resume(self) -> None:
        """Take up what was joined before, in the background."""
        try:
            config = NodeConfig.load(self._instance)
        except InvalidInput as error:
            log.warning("%s", error)
            return
        if config is not None:
            self._resuming = asyncio.create_task(self._resume(config), name="join again")

    async def _resume(self, config: NodeConfig) -> None:
        while True:
            try:
                async with self._lock:
                    self._agent = await self._begin(config)
                return
            except (AtollError, OSError) as error:
                log.warning("cannot join %s again yet: %s", config.server, error)
            await asyncio.sleep(RETRY_S)

    async def _begin(self, config: NodeConfig) -> NodeAgent:
        agent = _agent(self._engine, self._instance, config)
        try:
            await agent.start()
        except BaseException:
            await agent.stop()
            raise
        return agent

    async def _stop_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.gather(self._resuming, return_exceptions=True)
            self._resuming = None

    async def close(self) -> None:
        """The daemon goes; containers and services stay. Idempotent."""
        await self._stop_resuming()
        agent, self._agent = self._agent, None
        if agent is not None:
            await agent.stop()

    async def rest(self) -> None:
        """The daemon goes and the engine's containers with it: nothing in the kernel stays. The cluster is not forgotten."""
        await self._stop_resuming()
        agent, self._agent = self._agent or self._former(), None
        if agent is not None:
            await agent.rest()

    def _former(self) -> NodeAgent | None:
        """Of a cluster that was joined and has not been found again: there may be much of it here."""
        config = NodeConfig.load(self._instance)
        return None if config is None else _agent(self._engine, self._instance, config)


def _agent(engine: Engine, instance: Instance, config: NodeConfig) -> NodeAgent:
    from atoll.node.agent import NodeAgent

    return NodeAgent(engine, instance, config)
