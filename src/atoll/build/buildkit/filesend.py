"""Files to the client (moby.filesync.v1.FileSend): bytes of an archive, or a tree as fsutil's packets, whose contents it asks for."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.build.buildkit import messages
from atoll.build.buildkit.filesync import (
    CHARACTER,
    DEVICE,
    DIRECTORY,
    FIFO,
    SETGID,
    SETUID,
    SOCKET,
    STICKY,
    SYMLINK,
    Moved,
    PacketType,
)
from atoll.build.buildkit.grpc import OutgoingCall
from atoll.build.buildkit.sessions import Session
from atoll.build.sources import Tree, merged_tree
from atoll.errors import InvalidInput
from atoll.images.threads import in_thread
from atoll.kernel.openat2 import open_in_root

METHOD = "/moby.filesync.v1.FileSend/DiffCopy"
EXPORTER_KEY = "buildkit-attachable-exporter-id"
ATTRIBUTE_KEY = "exporter-md-"
PIECE = 256 * 1024
_KINDS = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFBLK: DEVICE,
    stat.S_IFCHR: DEVICE | CHARACTER,
}
_SPECIAL = ((stat.S_ISUID, SETUID), (stat.S_ISGID, SETGID), (stat.S_ISVTX, STICKY))


async def send_archive(session: Session, number: int, chunks: AsyncIterator[bytes], told: Mapping[str, str], moved: Moved) -> None:
    """CHUNKS to the client's output NUMBER; TOLD goes along. Raises RpcError, Disconnected."""
    total = 0
    attributes = [(f"{ATTRIBUTE_KEY}{name}", value) for name, value in told.items()]
    async with session.channel.call(METHOD, [*_target(number), *attributes]) as call:
        async for chunk in chunks:
            await call.send(messages.BytesMessage(data=chunk))
            total += len(chunk)
            moved(total)
        await call.finish()


def _target(number: int) -> list[tuple[str, str]]:
    return [(EXPORTER_KEY, str(number))]


async def send_tree(session: Session, number: int, lowers: Sequence[Path], moved: Moved) -> None:
    """The tree merged from LOWERS, top first, to the client's directory NUMBER. Raises RpcError, Disconnected, InvalidInput."""
    with merged_tree(lowers, "the result") as tree:
        stats = await in_thread(lambda: [_stat(tree, member.path, member.status) for member in tree.walk("") if member.path])
        async with session.channel.call(METHOD, _target(number)) as call:
            for one in stats:
                await call.send(messages.Packet(type=PacketType.STAT, stat=one))
            await call.send(messages.Packet(type=PacketType.STAT))
            await _answer(call, tree, stats, moved)
            await call.finish()


async def _answer(call: OutgoingCall, tree: Tree, stats: Sequence[Any], moved: Moved) -> None:
    """The contents the client asks for, until it has all it wants."""
    total = 0
    while (packet := await call.receive(messages.Packet)) is not None:
        if packet.type == PacketType.FIN:
            await call.send(messages.Packet(type=PacketType.FIN))
            return
        if packet.type == PacketType.ERR:
            raise InvalidInput(f"the client cannot write the files: {packet.data.decode('utf-8', 'replace')}")
        if packet.type != PacketType.REQ or len(stats) <= packet.ID:
            raise InvalidInput(f"the client sent an unexpected packet of type {packet.type}")
        fd = open_in_root(tree.root, stats[packet.ID].path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            while data := await asyncio.to_thread(os.read, fd, PIECE):
                await call.send(messages.Packet(type=PacketType.DATA, ID=packet.ID, data=data))
                total += len(data)
                moved(total)
        finally:
            os.close(fd)
        await call.send(messages.Packet(type=PacketType.DATA, ID=packet.ID))


def _stat(tree: Tree, path: str, status: os.stat_result) -> Any:
    mode = status.st_mode & 0o777 | _KINDS.get(stat.S_IFMT(status.st_mode), 0)
    mode |= sum(flag for bit, flag in _SPECIAL if status.st_mode & bit)
    found = messages.Stat(path=path, mode=mode, uid=status.st_uid, gid=status.st_gid, modTime=status.st_mtime_ns)
    if stat.S_ISREG(status.st_mode):
        found.size = status.st_size
    elif stat.S_ISLNK(status.st_mode):
        found.linkname = tree.link(path) or ""
    elif mode & DEVICE:
        found.devmajor, found.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return found
