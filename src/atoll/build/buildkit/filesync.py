"""Files from the client: fsutil's packets (moby.filesync.v1.FileSync, DiffCopy), as a tar.

The client walks its directory and tells of each file (STAT); whose content is wanted is asked for by its number (REQ), and comes in pieces
(DATA), those of several files at once. A tar has them one after the other, so small files are asked for some way ahead and a large one when
its turn comes. As a tar they go through the one extractor that all contexts go through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from urllib.parse import quote_plus

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Call, Channel
from atoll.build.keptcontexts import Signature
from atoll.errors import InvalidInput, LimitExceeded
from atoll.images.extract import ENTRIES_MAX
from atoll.images.tar import Entry, Kind
from atoll.images.tarheader import TRAILER, encode, padding

METHOD = "/moby.filesync.v1.FileSync/DiffCopy"
AHEAD_BYTES = 4 << 20  # of files asked for before their turn
AHEAD_FILES = 128


class PacketType(IntEnum):
    STAT = 0
    REQ = 1
    DATA = 2
    FIN = 3
    ERR = 4


# Go's os.FileMode (io/fs, FileMode), which the modes of STAT packets are.
DIRECTORY, SYMLINK, DEVICE, FIFO, SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
SETUID, SETGID, CHARACTER, STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
_SPECIAL = ((SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000))

Moved = Callable[[int], None]
"""Hears how many bytes have come in all."""


@dataclass(slots=True)
class _File:
    """One whose content is wanted. What came before its turn waits in `pieces`."""

    entry: Entry
    number: int
    pieces: deque[bytes] = field(default_factory=deque)
    came: int = 0
    is_done: bool = False


@dataclass(slots=True)
class Seen:
    """What a transfer told of, by path; `known` is what need not come again, being as it was."""

    known: Mapping[str, Signature] = field(default_factory=dict)
    files: dict[str, Signature] = field(default_factory=dict)
    directories: dict[str, bool] = field(default_factory=dict)


async def tar_of(
    channel: Channel,
    directory: str,
    *,
    follow: Sequence[str] = (),
    exclude: Sequence[str] = (),
    moved: Moved | None = None,
    seen: Seen | None = None,
) -> AsyncIterator[bytes]:
    """The client's DIRECTORY as a tar: of all in it, or of the paths in FOLLOW, less what EXCLUDE names, in .dockerignore's language.

    SEEN hears of every entry, and leaves out of the tar what it knows. Raises InvalidInput for what is no such stream, RpcError where the
    client refuses, Disconnected where it goes.
    """
    asked = _metadata({"dir-name": [directory], "followpaths": follow, "exclude-patterns": exclude})
    async with channel.call(METHOD, asked) as call:
        transfer = _Transfer(call, moved, seen or Seen())
        async for chunk in transfer.run():
            yield chunk
        await transfer.say_goodbye()


def _metadata(values: dict[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Header values are ASCII; others travel query-escaped, and say so."""
    found: list[tuple[str, str]] = []
    for name, words in values.items():
        if all(word.isascii() for word in words):
            found += [(name, word) for word in words]
        else:
            found += [(name, quote_plus(word)) for word in words]
            found.append((f"{name}-encoded", "1"))
    return found


class _Transfer:
    def __init__(self, call: Call, moved: Moved | None, seen: Seen) -> None:
        self._call = call
        self._seen = seen
        self._moved = moved
        self._waiting: deque[_File | Entry] = deque()  # in the order of the walk
        self._unasked: deque[_File] = deque()
        self._files: dict[int, _File] = {}  # asked for, not yet whole
        self._ahead = 0
        self._number = 0
        self._total = 0
        self._walked = False

    async def run(self) -> AsyncIterator[bytes]:
        while not self._walked:
            await self._take(await self._next())
            for chunk in self._ready():
                yield chunk
            await self._ask()
        while self._waiting:
            await self._ask()
            async for chunk in self._head():
                yield chunk
        yield TRAILER

    async def say_goodbye(self) -> None:
        """FIN each way, after which the client ends the call without an error."""
        await self._send(PacketType.FIN)
        while (packet := await self._call.receive(messages.Packet)) is not None:
            if packet.type == PacketType.FIN:
                break
        self._call.write_eof()

    async def _next(self) -> Any:
        packet = await self._call.receive(messages.Packet)
        if packet is None:
            raise InvalidInput("the client ended its files before their end")
        if packet.type == PacketType.ERR:
            raise InvalidInput(f"the client cannot send its files: {packet.data.decode('utf-8', 'replace')}")
        return packet

    async def _take(self, packet: Any) -> None:
        if packet.type == PacketType.STAT:
            if not packet.HasField("stat"):
                self._walked = True
            else:
                self._add(packet.stat)
        elif packet.type == PacketType.DATA:
            file = self._files.get(packet.ID)
            if file is None:
                raise InvalidInput(f"the client sent a file that was not asked for: {packet.ID}")
            self._data(file, packet.data)
        else:
            raise InvalidInput(f"the client sent an unexpected packet of type {packet.type}")

    def _add(self, stat: Any) -> None:
        entry = entry_of(stat)
        if self._number >= ENTRIES_MAX:
            raise LimitExceeded(f"the context has more than {ENTRIES_MAX} entries")
        if entry is not None and not self._is_known(stat, entry):
            if entry.kind is Kind.FILE and entry.size > 0:
                file = _File(entry, self._number)
                self._waiting.append(file)
                self._unasked.append(file)
            else:
                self._waiting.append(entry)
        self._number += 1

    def _is_known(self, stat: Any, entry: Entry) -> bool:
        seen, path = self._seen, entry.name.decode("utf-8", "surrogateescape")
        signature = (stat.mode, entry.size, stat.modTime, stat.devmajor << 32 | stat.devminor, stat.linkname)
        seen.files[path] = signature
        seen.directories[path] = entry.kind is Kind.DIRECTORY
        # What a hard link leads to may have changed, and is then another file.
        return seen.known.get(path) == signature and entry.kind is not Kind.LINK and not stat.xattrs

    def _data(self, file: _File, data: bytes) -> None:
        if not data:
            if file.came != file.entry.size:
                raise InvalidInput(f"{file.entry}: the client sent {file.came} bytes of {file.entry.size}: it changed meanwhile")
            file.is_done = True
            del self._files[file.number]
            return
        file.came += len(data)
        self._total += len(data)
        if file.came > file.entry.size:
            raise InvalidInput(f"{file.entry}: the client sent more than {file.entry.size} bytes: it changed meanwhile")
        file.pieces.append(data)
        if self._moved is not None:
            self._moved(self._total)

    async def _ask(self) -> None:
        """For the file whose turn it is, whatever its size, and as many after it as may wait here."""
        while self._unasked:
            file = self._unasked[0]
            is_next = self._waiting[0] is file
            if not is_next and (self._ahead + file.entry.size > AHEAD_BYTES or len(self._files) >= AHEAD_FILES):
                return
            self._unasked.popleft()
            self._files[file.number] = file
            self._ahead += file.entry.size
            await self._send(PacketType.REQ, file.number)

    async def _send(self, kind: PacketType, number: int = 0) -> None:
        await self._call.send(messages.Packet(type=kind, ID=number))

    def _ready(self) -> list[bytes]:
        """The entries at the head that are whole."""
        chunks = []
        while self._waiting:
            item = self._waiting[0]
            if isinstance(item, _File):
                if not item.is_done:
                    break
                chunks += [encode(item.entry), *item.pieces, padding(item.entry.size)]
                self._ahead -= item.entry.size
            else:
                chunks.append(encode(item))
            self._waiting.popleft()
        return chunks

    async def _head(self) -> AsyncIterator[bytes]:
        """The entries at the head; a file as it comes."""
        for chunk in self._ready():
            yield chunk
        if not self._waiting:
            return
        file = self._waiting[0]
        assert isinstance(file, _File)
        await self._ask()  # it may have had to wait for what stood before it
        yield encode(file.entry)
        while True:
            while file.pieces:
                yield file.pieces.popleft()
            if file.is_done:
                break
            await self._take(await self._next())
        yield padding(file.entry.size)
        self._ahead -= file.entry.size
        self._waiting.popleft()


def entry_of(stat: Any) -> Entry | None:
    """A STAT as a tar's entry; None for a socket, which no tar has. Raises InvalidInput for what no file has."""
    if "\0" in stat.path or "\0" in stat.linkname or stat.size < 0:
        raise InvalidInput(f"the client told of an impossible file: {stat.path!r}, {stat.size} bytes")
    mode = stat.mode
    bits = mode & 0o777 | sum(bit for flag, bit in _SPECIAL if mode & flag)
    entry = Entry(stat.path.encode("utf-8", "surrogateescape"), Kind.FILE, bits, stat.uid, stat.gid, 0, stat.modTime)
    if mode & DIRECTORY:
        entry.kind = Kind.DIRECTORY
    elif mode & SYMLINK:
        entry.kind = Kind.SYMLINK
    elif mode & SOCKET:
        return None
    elif mode & FIFO:
        entry.kind = Kind.FIFO
    elif mode & DEVICE:
        entry.kind = Kind.CHARACTER if mode & CHARACTER else Kind.BLOCK
        entry.device = (stat.devmajor, stat.devminor)
    elif stat.linkname:
        entry.kind = Kind.LINK
    else:
        entry.size = stat.size
    entry.link = stat.linkname.encode("utf-8", "surrogateescape")
    entry.xattrs = dict(stat.xattrs)
    return entry
