"""A tar reader for archives nobody vouches for: one pass, bounded memory, typed errors.

It reads v7, ustar, GNU (long names, base-256 numbers, sparse files) and pax (with xattrs and the three sparse forms), as GNU tar, Go and
Python write them. It only reads: names come out as bytes, exactly as they stand, and whoever makes files of them decides (extract.py).
Python's tarfile is no boundary: its filters have been bypassed four times, and it takes 3 times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from atoll.images.tar import BLOCK, NS, Entry, Kind, TarError
from atoll.images.tarfields import (
    SPARSE_MAX,
    check,
    decimal,
    limit_pieces,
    number,
    owner,
    padded,
    pax_records,
    pax_time,
    read_xattrs,
    set_sparse,
    short_name,
    sparse_fields,
)

SPECIAL_MAX = 1 << 20  # bytes of a long name or of pax records; Go's archive/tar has the same
_ZERO = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12s")
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class TarReader:
    """Iterate for entries; `data()` gives the bytes of the entry last seen. What is not read is skipped.

    `position` counts the bytes consumed. Raises TarError.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._at = 0
        self._left = 0  # unread bytes of the current member, padding included
        self._stored = 0
        self._defaults: list[tuple[str, bytes]] = []
        self.position = 0

    def __iter__(self) -> Iterator[Entry]:
        while True:
            padding = self._left - self._stored
            self._skip(self._stored)
            self._left = self._stored = 0
            if padding:
                if self._is_at_end():
                    return  # docker build -f - sends the last member without its padding, and no trailer
                self._skip(padding)
            entry = self._next()
            if entry is None:
                return
            yield entry

    def data(self) -> Iterator[memoryview]:
        """The stored bytes of the current entry, in pieces as they arrive."""
        while self._stored:
            piece = self._piece(self._stored)
            self._stored -= len(piece)
            self._left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Reads what follows the end of the archive, so that a hash over the stream is complete."""
        self._buffer, self._at = b"", 0
        for _ in self._chunks:
            pass

    # bytes ---------------------------------------------------------------------------------------------------------------------------
    def _fill(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._buffer, self._at = chunk, 0
                return True
        return False

    def _is_at_end(self) -> bool:
        return self._at == len(self._buffer) and not self._fill()

    def _piece(self, most: int) -> memoryview:
        if self._is_at_end():
            raise TarError("unexpected end of archive: the tar is truncated")
        piece = memoryview(self._buffer)[self._at : self._at + most]
        self._at += len(piece)
        self.position += len(piece)
        return piece

    def _take(self, n: int) -> bytes:
        end = self._at + n
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            self.position += n
            return data
        parts = []
        while n:
            piece = self._piece(n)
            parts.append(bytes(piece))
            n -= len(piece)
        return b"".join(parts)

    def _skip(self, n: int) -> None:
        while n:
            n -= len(self._piece(n))

    # headers -------------------------------------------------------------------------------------------------------------------------
    def _next(self) -> Entry | None:
        records = list(self._defaults)
        long_name = long_link = None
        while True:
            if self._is_at_end():
                return None  # no trailer: what many a pipe leaves; the digest tells whether anything is missing
            block = self._take(BLOCK)
            if block == _ZERO:
                return None
            fields = _HEADER.unpack(block)
            check(block, fields[6])
            flag, size = fields[7], number(fields[4])
            if size < 0:
                raise TarError("a member has a negative size")
            if flag == b"L":
                long_name = self._special(size).split(b"\0", 1)[0]
            elif flag == b"K":
                long_link = self._special(size).split(b"\0", 1)[0]
            elif flag == b"x":
                records += pax_records(self._special(size))
            elif flag == b"g":
                self._defaults = pax_records(self._special(size))
                records = list(self._defaults)
            elif flag in b"VMN" and flag:  # volume label, continuation, old long name: nothing to make
                self._skip(padded(size))
            else:
                return self._entry(fields, size, dict(records), records, long_name, long_link)

    def _special(self, size: int) -> bytes:
        if size > SPECIAL_MAX:
            raise TarError(f"extended header of {size} bytes: more than {SPECIAL_MAX}")
        return self._take(padded(size))[:size]

    def _entry(
        self,
        fields: tuple[bytes, ...],
        size: int,
        pax: dict[str, bytes],
        records: list[tuple[str, bytes]],
        long_name: bytes | None,
        long_link: bytes | None,
    ) -> Entry:
        flag = fields[7]
        kind = _KINDS.get(flag)
        name = pax.get("path") or long_name or short_name(fields)
        if kind is None:
            raise TarError(f"member {name!r} is of unknown type {flag!r}")
        if kind is Kind.FILE and name.endswith(b"/") and flag in b"\x000":
            kind = Kind.DIRECTORY  # v7 had no other way to say so
        if "size" in pax:
            size = decimal(pax["size"])
        stored = size if kind is Kind.FILE else 0
        self._stored, self._left = stored, padded(stored)
        entry = Entry(
            name,
            kind,
            number(fields[1]) & 0o7777,
            owner(pax["uid"] if "uid" in pax else fields[2], pax="uid" in pax),
            owner(pax["gid"] if "gid" in pax else fields[3], pax="gid" in pax),
            stored,
            pax_time(pax["mtime"]) if "mtime" in pax else number(fields[5]) * NS,
            link=pax.get("linkpath") or long_link or fields[8].split(b"\0", 1)[0],
            stored=stored,
        )
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.device = (number(fields[13]), number(fields[14]))
        if pax:
            read_xattrs(entry, pax)
        if flag == b"S":
            self._old_sparse(entry, fields)
        elif kind is Kind.FILE and any(key.startswith("GNU.sparse.") for key in pax):
            self._pax_sparse(entry, pax, records)
        return entry

    # sparse files --------------------------------------------------------------------------------------------------------------------
    def _old_sparse(self, entry: Entry, fields: tuple[bytes, ...]) -> None:
        """GNU's first form: four pieces in the header, 21 in each block that follows it."""
        header = b"".join(fields)
        entry.size = number(header[483:495])
        raw, more = header[386:482], header[482]
        pieces = sparse_fields(raw)
        while more:
            block = self._take(BLOCK)
            pieces += sparse_fields(block[:504])
            more = block[504]
            limit_pieces(pieces)
        set_sparse(entry, pieces)

    def _pax_sparse(self, entry: Entry, pax: dict[str, bytes], records: list[tuple[str, bytes]]) -> None:
        """GNU's pax forms 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files")."""
        if "GNU.sparse.name" in pax:
            entry.name = pax["GNU.sparse.name"]
        real = pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size"))
        if real is None:
            raise TarError(f"sparse file {entry} without a size")
        entry.size = decimal(real)
        if pax.get("GNU.sparse.major") == b"1":
            numbers = self._map_in_data(entry)
        elif "GNU.sparse.map" in pax:
            numbers = [decimal(part) for part in pax["GNU.sparse.map"].split(b",") if part]
        else:
            numbers = [decimal(value) for key, value in records if key in ("GNU.sparse.offset", "GNU.sparse.numbytes")]
        if len(numbers) % 2:
            raise TarError(f"sparse file {entry} has a broken map")
        set_sparse(entry, list(zip(numbers[::2], numbers[1::2], strict=True)))

    def _map_in_data(self, entry: Entry) -> list[int]:
        """Form 1.0: the map stands before the data as decimal lines, padded to whole blocks."""
        text, wanted = b"", 1
        while text.count(b"\n") < wanted:
            if self._stored < BLOCK or len(text) > SPECIAL_MAX:
                raise TarError(f"sparse file {entry} has a broken map")
            text += self._take(BLOCK)
            self._stored -= BLOCK
            self._left -= BLOCK
            if b"\n" in text:
                wanted = 1 + 2 * decimal(text.split(b"\n", 1)[0])
                if wanted > 1 + 2 * SPARSE_MAX:
                    raise TarError("a sparse file has too many pieces")
        entry.stored = self._stored
        return [decimal(line) for line in text.split(b"\n")[1:wanted]]
