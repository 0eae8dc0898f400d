"""A DNS server over UDP and TCP (RFC 1035, RFC 7766) around one function that answers.

Its clients are containers, so every packet may be hostile: what cannot be parsed is answered FORMERR or nothing, what asks for more than
a lookup
NOTIMP or REFUSED, and queries in flight, connections and each client's share are bounded; beyond the bound a datagram is lost, as on a
network.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

logger = logging.getLogger(__name__)

Answer = Callable[[dns.message.Message, bytes, bool], Awaitable[dns.message.Message | bytes]]  # query, its wire form, whether by TCP

_HEADER = 12  # bytes
_QR = 0x80  # of the third byte: a response
REPLIES_MAX = 4096
_UDP_MIN, _UDP_MAX = 512, 1232  # bytes: RFC 1035's, and what passes every path unfragmented
IN_FLIGHT_MAX = 256
CLIENT_QUERIES_MAX = 1000  # a second, by UDP: a tenth of a core at most for one container that floods
CONNECTIONS_MAX = 32
_IDLE_S = 10
_ANSWER_S = 12  # longer than any upstream is waited for


class DnsServer(asyncio.DatagramProtocol):
    """Serves a UDP and a TCP socket, already bound, until closed."""

    def __init__(self, answer: Answer, *, version: Callable[[], object] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`version` changes whenever own names may mean something else: until then their replies are sent again as they were, in a tenth
        of the time.
        """
        self._answer = answer
        self._clock = clock
        self._version = version
        self._replies: dict[bytes, bytes] = {}  # by the query without its id
        self._replies_version: object = None
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._second = 0
        self._queries: Counter[str] = Counter()  # of each client, in this second

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Takes the sockets over, also on failure."""
        with contextlib.ExitStack() as undo:
            undo.callback(udp.close)
            undo.callback(tcp.close)
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=udp)
            self._server = await asyncio.start_server(self._connected, sock=tcp)
            undo.pop_all()

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    # UDP

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._queries.clear()
        self._queries[addr[0]] += 1
        if len(self._tasks) < IN_FLIGHT_MAX and self._queries[addr[0]] <= CLIENT_QUERIES_MAX:
            self._spawn(self._serve_datagram(data, addr))

    async def _serve_datagram(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = await self._reply(data, by_tcp=False)
        if reply and self._transport and not self._transport.is_closing():
            self._transport.sendto(reply, addr)

    # TCP

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections += 1
        self._spawn(self._serve_connection(reader, writer))

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                reply = await self._reply(data, by_tcp=True)
                if reply is None:
                    return
                async with asyncio.timeout(_IDLE_S):
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError included: the client is gone or asleep
            return
        finally:
            self._connections -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    # Both

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, data: bytes, *, by_tcp: bool) -> bytes | None:
        """The bytes to send, or None where nothing may be sent: answering a response could make two servers talk for ever."""
        if len(data) < _HEADER or data[2] & _QR:
            return None
        if not by_tcp and (known := self._known(data)):
            return known
        try:
            query = dns.message.from_wire(data, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return _bare(data, dns.rcode.FORMERR)
        if query.opcode() != dns.opcode.QUERY:
            return _bare(data, dns.rcode.NOTIMP)
        if len(query.question) != 1:
            return _bare(data, dns.rcode.FORMERR)
        if query.question[0].rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR) or query.question[0].rdclass != dns.rdataclass.IN:
            return _bare(data, dns.rcode.REFUSED)
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._answer(query, data, by_tcp)
            if isinstance(answer, bytes):
                return answer
            reply = _wire(answer, query, by_tcp=by_tcp)
            if not by_tcp and _is_lasting(answer):
                self._remember(data, reply)
            return reply
        except Exception:  # one query must not end the server
            logger.exception("cannot answer %s", query.question[0])
            return _bare(data, dns.rcode.SERVFAIL)

    def _known(self, data: bytes) -> bytes | None:
        if self._version is None:
            return None
        if (version := self._version()) != self._replies_version:
            self._replies.clear()
            self._replies_version = version
        reply = self._replies.get(data[2:])
        return data[:2] + reply if reply else None

    def _remember(self, data: bytes, reply: bytes) -> None:
        if self._version is None or self._version() != self._replies_version:
            return  # it changed while the answer was made
        if len(self._replies) >= REPLIES_MAX:
            self._replies.clear()
        self._replies[data[2:]] = reply[2:]


def bound_sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets for `DnsServer.start`, in the namespace of the calling thread. Raises OSError. With port 0 their ports differ."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((address, port))
        tcp.bind((address, port))
        tcp.listen()
    except BaseException:
        udp.close()
        tcp.close()
        raise
    for held in (udp, tcp):
        held.setblocking(False)
    return udp, tcp


def failure(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(code)
    return response


def _is_lasting(response: dns.message.Message) -> bool:
    """Of our own names, and the same each time: several addresses are shuffled, an alias leads to names that others change."""
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return False
    return sum(map(len, response.answer)) <= 1 and all(rrset.rdtype != dns.rdatatype.CNAME for rrset in response.answer)


def _bare(data: bytes, code: dns.rcode.Rcode) -> bytes:
    """A header only, for queries that cannot be trusted to be repeated."""
    return data[:2] + bytes([_QR | data[2] & 0x79, _QR | code]) + bytes(8)  # opcode and RD are the query's; RA set


def _wire(response: dns.message.Message, query: dns.message.Message, *, by_tcp: bool) -> bytes:
    """Cut short and marked TC where it does not fit what the client takes."""
    limit = 65535 if by_tcp else min(max(query.payload if query.edns >= 0 else _UDP_MIN, _UDP_MIN), _UDP_MAX)
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.additional.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)
