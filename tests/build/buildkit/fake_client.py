"""A BuildKit client of our own making: it serves what a test wants on its session, good or bad, and asks for builds.

async with FakeClient(engine, {"Dockerfile": "FROM busybox"}) as client:
    await client.solve()        # the ExporterResponse, or RpcError
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Self

from atoll.build.buildkit import messages
from atoll.build.buildkit.filesync import METHOD, PacketType
from atoll.build.buildkit.grpc import Channel, Services
from atoll.http import Client
from atoll.http.http2 import Http2

CONTROL = "/moby.buildkit.v1.Control/"
PIECE = 32 * 1024


class Refused(Exception):
    """Status, and body."""


class FakeClient:
    """FILES are name to content; `send` may be replaced by a test's own."""

    def __init__(self, engine, files, methods=()) -> None:
        self.engine = engine
        self.files = files
        self.id = uuid.uuid4().hex
        self.asked = []  # metadata of each transfer
        self.send = self._send
        self._methods = {METHOD: self._diff_copy, **dict(methods)}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._http = Client(self.engine.url)
        self._stack.push_async_callback(self._http.close)
        headers = [("X-Docker-Expose-Session-Uuid", self.id), *(("X-Docker-Expose-Session-Grpc-Method", name) for name in self._methods)]
        served = await self._stack.enter_async_context(Http2(await self.upgraded("/session", headers), client=False))
        self.session = served
        self._serving = asyncio.create_task(Services(self._methods).serve(served))
        self._stack.push_async_callback(self._stop)
        self.channel = Channel(await self._stack.enter_async_context(Http2(await self.upgraded("/grpc"), client=True)))
        return self

    async def __aexit__(self, *exc):
        await self._stack.aclose()

    async def _stop(self):
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def upgraded(self, path, headers=()):
        response, stream = await self._http.upgrade("POST", path, [("Connection", "Upgrade"), ("Upgrade", "h2c"), *headers])
        if stream is None:
            raise Refused(response.status, await response.read())
        return stream

    async def solve(self, **attributes):
        exporters = [messages.Exporter(Type="moby", Attrs={"name": "faked"})]
        request = messages.SolveRequest(
            Ref=uuid.uuid4().hex, Session=self.id, Frontend="dockerfile.v0", FrontendAttrs=attributes, Exporters=exporters
        )
        async with asyncio.timeout(20):
            return dict((await self.channel.unary(f"{CONTROL}Solve", request, messages.SolveResponse)).ExporterResponse)

    async def _diff_copy(self, call):
        self.asked.append(dict(call.metadata))
        follow = call.every("followpaths")
        await self.send(call, {name: data for name, data in self.files.items() if not follow or name in follow})

    async def _send(self, call, files):
        """As a good client does."""
        names = sorted(files)
        for name in names:
            await self.stat(call, name, files[name])
        await call.send(messages.Packet(type=PacketType.STAT))
        while (packet := await call.receive(messages.Packet)) is not None:
            if packet.type == PacketType.FIN:
                await call.send(messages.Packet(type=PacketType.FIN))
                return
            data = files[names[packet.ID]].encode()
            for start in range(0, len(data), PIECE):
                await call.send(messages.Packet(type=PacketType.DATA, ID=packet.ID, data=data[start : start + PIECE]))
            await call.send(messages.Packet(type=PacketType.DATA, ID=packet.ID))

    async def stat(self, call, name, data, **more):
        stat = messages.Stat(**{"path": name, "mode": 0o644, "size": len(data.encode()), **more})
        await call.send(messages.Packet(type=PacketType.STAT, stat=stat))
