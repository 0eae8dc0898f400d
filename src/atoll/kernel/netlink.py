"""Netlink: requests, dumps and attributes over an AF_NETLINK socket.

Raw sockets instead of the `ip` program, because a veth pair on a bridge costs 0.4 ms this way and 11 ms by seven programs. A socket
belongs to
the network namespace it was made in, whatever thread uses it later; `atoll.kernel.netns.call` makes one inside another namespace.
Layouts: linux/netlink.h and netlink(7); everything is in the machine's own byte order.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from atoll.errors import SystemFailure

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300  # NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE = 1 << 18  # bytes; a dump's datagram is at most 32 KiB, a generous buffer costs nothing
_TIMEOUT_S = 10  # the kernel answers inside the request; only a lock held by another (a namespace being torn down) delays it
_NLM_F_DUMP_INTR = 0x10
_DUMP_TRIES = 5


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute (struct nlattr), padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Kind to payload; what is cut short is left out. Of a repeated kind the last stands."""
    found = {}
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class NetlinkSocket:
    """Requests one at a time, each answered before the next; not for use by two threads at once."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, payload: bytes, *, flags: int = 0, what: str) -> None:
        """Sends and waits for the acknowledgement. Raises SystemFailure with `what` ("add address 10.0.0.2/24 to eth0")."""
        self._send(kind, flags | NLM_F_REQUEST | NLM_F_ACK, payload, what)
        for _ in self._replies(what):
            pass

    def query(self, kind: int, payload: bytes, *, what: str) -> bytes:
        """The payload of the one message that answers. Raises SystemFailure."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK, payload, what)
        return b"".join(self._replies(what))

    def dump(self, kind: int, payload: bytes, *, what: str) -> list[bytes]:
        """Every message's payload; taken again where the kernel says that the list changed meanwhile (NLM_F_DUMP_INTR)."""
        for _ in range(_DUMP_TRIES):
            self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload, what)
            self._interrupted = False
            replies = list(self._replies(what))
            if not self._interrupted:
                break
        return replies

    def _send(self, kind: int, flags: int, payload: bytes, what: str) -> None:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        try:
            self._socket.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0) + payload)
        except OSError as error:
            raise SystemFailure(what, error.errno or 0) from error

    def _replies(self, what: str) -> Iterator[bytes]:
        """Payloads up to the acknowledgement, the end of the dump, or the error that ends it."""
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except OSError as error:
                raise SystemFailure(what, error.errno or 0) from error
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
                body = data[offset + _HEADER.size : offset + length]
                offset += max(length + 3 & ~3, _HEADER.size)
                if sequence != self._sequence:
                    continue  # left over from a request that timed out
                if flags & _NLM_F_DUMP_INTR:
                    self._interrupted = True
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code < 0:
                        raise SystemFailure(what, -code)
                    return
                yield body
