"""Writes tar headers: ustar where it suffices, pax records where a name, number or xattr needs them.

Bytes depend on the entry alone, so packing the same tree twice gives the same digest. Times are whole seconds, as in Docker's layers.
"""

from __future__ import annotations

from atoll.images.tar import BLOCK, NS, Entry, Kind

TRAILER = bytes(2 * BLOCK)
_FLAGS = {
    Kind.FILE: b"0",
    Kind.LINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_NAME = 100
_ID_MAX = 0o7777777
_SIZE_MAX = 0o77777777777


def encode(entry: Entry) -> bytes:
    """The header blocks of `entry`; a directory's name gets its slash here. Data and padding are the caller's."""
    name = entry.name + b"/" if entry.kind is Kind.DIRECTORY and not entry.name.endswith(b"/") else entry.name
    seconds = entry.mtime_ns // NS
    size = entry.size if entry.kind is Kind.FILE else 0
    pax: list[tuple[bytes, bytes]] = []
    if len(name) > _NAME or not name.isascii():
        pax.append((b"path", name))
    if len(entry.link) > _NAME or not entry.link.isascii():
        pax.append((b"linkpath", entry.link))
    pax.extend((key, b"%d" % value) for key, value in ((b"uid", entry.uid), (b"gid", entry.gid)) if value > _ID_MAX)
    if size > _SIZE_MAX:
        pax.append((b"size", b"%d" % size))
    if not 0 <= seconds <= _SIZE_MAX:
        pax.append((b"mtime", b"%d" % seconds))
    pax.extend((b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape"), value) for key, value in sorted(entry.xattrs.items()))
    block = _block(
        name,
        entry.mode,
        entry.uid if entry.uid <= _ID_MAX else 0,
        entry.gid if entry.gid <= _ID_MAX else 0,
        size if size <= _SIZE_MAX else 0,
        seconds if 0 <= seconds <= _SIZE_MAX else 0,
        _FLAGS[entry.kind],
        entry.link,
        entry.device,
    )
    if not pax:
        return block
    records = b"".join(_record(key, value) for key, value in pax)
    head = _block(b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2], 0o644, 0, 0, len(records), 0, b"x", b"", (0, 0))
    return head + records + padding(len(records)) + block


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _block(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, flag: bytes, link: bytes, device: tuple[int, int]) -> bytes:
    head = b"%-100s%07o\0%07o\0%07o\0%011o\0%011o\0" % (b"", mode, uid, gid, size, mtime)
    block = bytearray(BLOCK)
    block[: len(head)] = head
    block[:_NAME] = name[:_NAME].ljust(_NAME, b"\0")
    block[148:156] = b" " * 8
    block[156:157] = flag
    block[157:257] = link[:_NAME].ljust(_NAME, b"\0")
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"%07o\0%07o\0" % device
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>` and a newline, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
