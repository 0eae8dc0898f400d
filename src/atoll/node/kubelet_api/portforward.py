"""port-forward: connections into a pod's network, made inside its namespace, to its loopback.

kubectl speaks SPDY/3.1, bare or inside a WebSocket (`SPDY/3.1+portforward.k8s.io`): for each connection two streams, "error" and "data",
that share a requestID. Client libraries speak WebSocket channels (`v4.channel.k8s.io`): two numbers for each port of the query.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

from atoll.errors import InvalidInput, Unavailable
from atoll.http import Request, Stream, from_socket, spdy, splice, websocket
from atoll.http.errors import Disconnected, ProtocolError
from atoll.http.spdy import Session, SpdyStream
from atoll.kernel import netns as kernel_netns

TUNNEL = "SPDY/3.1+portforward.k8s.io"
CHANNELS = "v4.channel.k8s.io"
PROTOCOL = "portforward.k8s.io"
CONNECT_S = 10.0
PAIR_S = 30.0  # for the second stream of a pair

log = logging.getLogger(__name__)


async def serve(request: Request, netns: Path | None) -> None:
    """`netns` is the pod's, None for the host's."""
    if (request.upgrade_token or "").lower() != "websocket":
        session, _ = await spdy.accept(request, (PROTOCOL,))
        await _serve_session(session, netns)
        return
    connection = await websocket.accept(request, (TUNNEL, CHANNELS))
    if connection.subprotocol == TUNNEL:
        await _serve_session(Session(connection.as_stream()), netns)
        return
    ports = [int(port) for text in request.query.getall("port") for port in text.split(",") if port.isdigit()]
    await _Channels(connection, ports, netns).serve()


async def connect(port: int, netns: Path | None) -> Stream:
    """To the pod's own loopback. Raises Unavailable."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    connection = await asyncio.to_thread(kernel_netns.call, netns, make) if netns is not None else make()
    try:
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except (OSError, TimeoutError) as error:
        connection.close()
        raise Unavailable(f"failed to connect to localhost:{port} inside the pod: {error or 'timed out'}") from None
    return await from_socket(connection)


async def _serve_session(session: Session, netns: Path | None) -> None:
    waiting: dict[str, SpdyStream] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        async for stream in session.incoming():
            kind, identity = stream.headers.get("streamtype") or "", stream.headers.get("requestid") or ""
            other = waiting.pop(identity, None)
            if other is None:
                waiting[identity] = stream
                continue
            error, data = (stream, other) if kind == "error" else (other, stream)
            task = asyncio.create_task(_forward(error, data, netns), name="port-forward connection")
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close()


async def _forward(error: SpdyStream, data: SpdyStream, netns: Path | None) -> None:
    port = data.headers.get("port") or ""
    try:
        inner = await connect(int(port), netns)
    except (Unavailable, ValueError, OSError) as reason:
        with contextlib.suppress(Disconnected):
            error.write(f"error forwarding port {port} to pod: {reason}".encode())
            error.write_eof()
            data.close()
        return
    try:
        await splice(data, inner)
    except (Disconnected, ProtocolError) as reason:
        log.debug("port-forward to %s: %s", port, reason)
    finally:
        inner.close()
        error.close()


class _Channels:
    """Port i has channel 2i for data and 2i+1 for its error; each begins with the port's number, two bytes, little-endian."""

    def __init__(self, connection: websocket.WebSocket, ports: list[int], netns: Path | None) -> None:
        if not ports or len(ports) > 127:
            raise InvalidInput("port-forward over WebSocket channels needs the query parameter ports, one to 127 of them")
        self._connection = connection
        self._ports = ports
        self._netns = netns
        self._inner: dict[int, Stream] = {}
        self._pumps: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            for index, port in enumerate(self._ports):
                for channel in (2 * index, 2 * index + 1):
                    await self._connection.send(bytes((channel,)) + port.to_bytes(2, "little"))
            for index, port in enumerate(self._ports):
                tasks.append(asyncio.create_task(self._open(index, port), name=f"port-forward {port}"))
            await asyncio.gather(*tasks)
            while (message := await self._connection.receive()) is not None:
                inner = self._inner.get(message[0] // 2) if message and message[0] % 2 == 0 else None
                if inner is not None:
                    inner.write(message[1:])
                    await inner.drain()
        except (Disconnected, ProtocolError) as error:
            log.debug("port-forward: %s", error)
        finally:
            for task in (*tasks, *self._pumps):
                task.cancel()
            await asyncio.gather(*tasks, *self._pumps, return_exceptions=True)
            for stream in self._inner.values():
                stream.close()
            await self._connection.close()

    async def _open(self, index: int, port: int) -> None:
        try:
            inner = self._inner[index] = await connect(port, self._netns)
        except Unavailable as error:
            await self._connection.send(bytes((2 * index + 1,)) + str(error).encode())
            return
        self._pumps.append(asyncio.create_task(self._pump(index, inner), name=f"port-forward output {port}"))

    async def _pump(self, index: int, inner: Stream) -> None:
        with contextlib.suppress(Disconnected, ProtocolError):
            while data := await inner.read():
                await self._connection.send(bytes((2 * index,)) + data)
            if len(self._ports) == 1:
                self._connection.send_close()  # channels know no end of their own
