"""Published ports in user space: relays TCP connections and UDP datagrams from a host socket to a container.

nftables carries what it can; the relay carries what comes by [::1] or goes by IPv6 to a container without, and everything where there is no
nftables. Its sockets also keep the host port from being taken by another program, which is why they are open even when no packet ever
reaches them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import OrderedDict
from functools import partial

logger = logging.getLogger(__name__)

_CHUNK = 65536  # bytes
_CONNECT_TIMEOUT_S = 10
UDP_PEERS_MAX = 1024  # each holds a socket; the one silent for longest gives way
UDP_IDLE_S = 90  # docker-proxy's


class TcpRelay:
    """Serves a listening socket until closed; each connection is a task owned by the relay."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self._listener = listener
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._listener)

    def close(self) -> None:
        if self._server:
            self._server.close()
        self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError as error:  # TimeoutError included
            logger.debug("relay to %s:%s: %s", *self._target, error)
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        except OSError:
            pass  # one side was reset: both end
        finally:
            writer.transport.abort()
            far_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of the stream, which is passed on: half-closed connections stay half open."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


class UdpRelay(asyncio.DatagramProtocol):
    """One socket towards the container for each peer, so that answers find their way back."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self._listener = listener
        self._target = target
        self._transport: asyncio.DatagramTransport | None = None
        self._peers: OrderedDict[tuple[str, int], _UdpPeer] = OrderedDict()

    async def start(self) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=self._listener)

    def close(self) -> None:
        for peer in list(self._peers.values()):
            peer.close()
        self._peers.clear()
        if self._transport:
            self._transport.close()
        else:
            self._listener.close()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        peer = self._peers.get(addr)
        if peer is None:
            if len(self._peers) >= UDP_PEERS_MAX:
                self._peers.popitem(last=False)[1].close()
            peer = self._peers[addr] = _UdpPeer(self._target, partial(self._answer, addr), partial(self._forget, addr))
        self._peers.move_to_end(addr)
        peer.send(data)

    def _answer(self, addr: tuple[str, int], data: bytes) -> None:
        if self._transport:
            self._transport.sendto(data, addr)

    def _forget(self, addr: tuple[str, int]) -> None:
        self._peers.pop(addr, None)


class _UdpPeer:
    """A connected, non-blocking socket to the container; closes itself when nothing has passed for UDP_IDLE_S."""

    def __init__(self, target: tuple[str, int], answer: partial[None], forget: partial[None]) -> None:
        self._answer = answer
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._last = self._loop.time()
        self._timer = self._loop.call_later(UDP_IDLE_S, self._check)
        with contextlib.suppress(OSError):  # no route: the datagram is lost, as on a network
            self._socket.connect(target)
        self._loop.add_reader(self._socket, self._readable)

    def send(self, data: bytes) -> None:
        self._last = self._loop.time()
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def close(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _readable(self) -> None:
        self._last = self._loop.time()
        with contextlib.suppress(OSError):
            self._answer(self._socket.recv(_CHUNK))

    def _check(self) -> None:
        idle = self._loop.time() - self._last
        if idle < UDP_IDLE_S:
            self._timer = self._loop.call_later(UDP_IDLE_S - idle, self._check)
        else:
            self._forget()
            self.close()
