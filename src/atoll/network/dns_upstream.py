"""Asks other name servers, on behalf of containers.

The query travels as it came, under a random id from a fresh port of the host, so that an off-path attacker has 32 bits to guess; the
reply must carry
the same id and question. Servers are asked in their order, twice round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from atoll.network.files import Resolver, host_resolver

logger = logging.getLogger(__name__)

PORT = 53
ASKING_MAX = 128
_UDP_S = 2.0
_TCP_S = 4.0
_ROUNDS = 2
_QR = 0x80
_MESSAGE_MIN = 12  # bytes; the header


class Upstream:
    """What one server asks of others. Bounded below what the server has in flight, so that dead upstreams cannot keep it from local
    answers.
    """

    def __init__(self, port: int = PORT) -> None:
        self._port = port
        self._asking = 0

    async def ask(self, data: bytes, servers: Sequence[str], *, by_tcp: bool) -> bytes | None:
        """The first valid reply, under the query's own id; None when no server gives one."""
        if self._asking >= ASKING_MAX:
            return None
        self._asking += 1
        try:
            return await _first_reply(data, servers, self._port, by_tcp=by_tcp)
        finally:
            self._asking -= 1


class HostServers:
    """The host's name servers; read again when resolv.conf changes, as laptops move between networks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._resolver = Resolver()

    def servers(self) -> tuple[str, ...]:
        try:
            status = os.stat(self._path)
        except OSError:
            return ()
        if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
            self._resolver, self._stamp = host_resolver(self._path), stamp
        return self._resolver.servers


async def _first_reply(data: bytes, servers: Sequence[str], port: int, *, by_tcp: bool) -> bytes | None:
    question = _question(data)
    for server in list(servers) * _ROUNDS:
        sent = secrets.token_bytes(2) + data[2:]
        try:
            async with asyncio.timeout(_TCP_S if by_tcp else _UDP_S):
                reply = await (_ask_tcp if by_tcp else _ask_udp)(sent, question, server, port)
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError included
            logger.debug("name server %s: %r", server, error)
            continue
        if _matches(reply, sent, question):
            return data[:2] + reply[2:]
    return None


async def _ask_udp(data: bytes, question: bytes, server: str, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bytes] = loop.create_future()
    transport, _protocol = await loop.create_datagram_endpoint(lambda: _Asking(reply, data, question), remote_addr=(server, port))
    try:
        transport.sendto(data)
        return await reply
    finally:
        transport.close()


async def _ask_tcp(data: bytes, _question: bytes, server: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.transport.abort()


class _Asking(asyncio.DatagramProtocol):
    """Waits for the reply that fits; forged ones are passed over, not taken as the answer."""

    def __init__(self, reply: asyncio.Future[bytes], sent: bytes, question: bytes) -> None:
        self._reply = reply
        self._sent = sent
        self._question = question

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._reply.done() and _matches(data, self._sent, self._question):
            self._reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)


def _question(data: bytes) -> bytes:
    """The bytes of the one question, case folded: servers may answer in another case, but nothing else may differ."""
    end = _MESSAGE_MIN
    while end < len(data) and data[end]:
        end += 1 + data[end]
    return data[_MESSAGE_MIN : end + 5].lower()


def _matches(reply: bytes, sent: bytes, question: bytes) -> bool:
    with contextlib.suppress(IndexError):
        return len(reply) >= _MESSAGE_MIN and reply[:2] == sent[:2] and bool(reply[2] & _QR) and _question(reply) == question
    return False
