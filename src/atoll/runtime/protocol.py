"""The keeper's protocol: one JSON object a packet over a SOCK_SEQPACKET unix socket, with descriptors beside it.

A request is {"id": n, "op": name, ...}; its reply {"id": n, "ok": {...}} or {"id": n, "error": {"kind", "message", ...}}. Replies may come
in any order. A packet without "id" is a hint, which nobody answers, or an event: {"event": "exit", ...}. The first request is `hello`,
which settles the version: a keeper outlives the program that started it, so a newer engine meets older keepers and must find out before it
relies on anything.

A packet has a ceiling (the socket's buffer); what is longer travels in a sealed memfd, named by {"memfd": true} and passed as the last
descriptor. Both ends share this module, so it imports little.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

VERSION = 3  # 2: starts have an `attempt`, keepers are followed by others (`renew`); 3: starts may be expected
RENEWING = 2  # the first version of it
EXPECTING = 3
OLDEST = 1  # the oldest keeper an engine of today can drive
INLINE_MAX = 64 * 1024  # bytes; well under the default socket buffer of 208 KiB
MESSAGE_MAX = 64 * 1024 * 1024  # bytes a peer may make us read from a memfd
FDS_MAX = 8
_ANCILLARY = socket.CMSG_SPACE(FDS_MAX * 4)


class ProtocolError(Exception):
    """The peer sent what this protocol does not know; the connection is of no more use."""


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def send(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one packet. Raises BlockingIOError when a non-blocking socket is full: nothing was sent then."""
    data = encode(message)
    if len(data) <= INLINE_MAX:
        _send(sock, data, fds)
        return
    memfd = os.memfd_create("atoll-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memfd, view) :]
        _send(sock, b'{"memfd":true}', (*fds, memfd))
    finally:
        os.close(memfd)


def _send(sock: socket.socket, data: bytes, fds: tuple[int, ...]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, *, keep: bool = False) -> tuple[dict[str, Any], list[int]] | None:
    """One packet and its descriptors (close-on-exec, the caller's to close); None when the peer has closed.

    With `keep` it stays in the socket, the descriptors being duplicates, until `drop` takes it out: whoever dies over it has not taken it
    from the one that comes next. Raises BlockingIOError when nothing is there and ProtocolError when it is not ours.
    """
    how = socket.MSG_CMSG_CLOEXEC | (socket.MSG_PEEK if keep else 0)
    try:
        data, ancillary, flags, _ = sock.recvmsg(INLINE_MAX + 1, _ANCILLARY, how)
    except ConnectionResetError:  # told once, when the peer ended with words of ours unread; what it had said itself comes after
        data, ancillary, flags, _ = sock.recvmsg(INLINE_MAX + 1, _ANCILLARY, how)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(payload[: len(payload) - len(payload) % 4])
            fds.extend(received)
    if not data:
        close_all(fds)
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ProtocolError("a packet was cut short")
        message = json.loads(data)
        if isinstance(message, dict) and message.get("memfd") is True:
            if not fds:
                raise ProtocolError("a long message came without its memory")
            message = json.loads(_read_memfd(fds.pop()))
        if not isinstance(message, dict):
            raise ProtocolError("a packet is not a JSON object")
    except (ValueError, ProtocolError) as error:
        close_all(fds)
        raise ProtocolError(str(error)) from error
    return message, fds


def drop(sock: socket.socket) -> None:
    """Take out the packet that `receive` has kept."""
    sock.recv(1)


def _read_memfd(fd: int) -> bytes:
    try:
        size = os.fstat(fd).st_size
        if size > MESSAGE_MAX:
            raise ProtocolError(f"a message of {size} bytes is longer than {MESSAGE_MAX}")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
