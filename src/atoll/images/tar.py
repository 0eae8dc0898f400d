"""A tar reader for archives nobody vouches for: one pass, bounded memory, typed errors.

It reads v7, ustar, GNU (long names, base-256 numbers, sparse files) and pax (with xattrs and the three sparse forms), as GNU tar, Go and
Python write them. It only reads: names come out as bytes, exactly as they stand, and whoever makes files of them decides (extract.py).
Python's tarfile is no boundary: its filters have been bypassed four times, and it takes 3 times as long.
"""

from __future__ import annotations

import base64
import binascii
import enum
import struct
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from atoll.errors import InvalidInput

BLOCK = 512
SPECIAL_MAX = 1 << 20  # bytes of a long name or of pax records; Go's archive/tar has the same
SPARSE_MAX = 1 << 16  # pieces of a sparse file
NUMBER_MAX = (1 << 63) - 1
NS = 1_000_000_000
_ZERO = bytes(BLOCK)
_SPACES = sum(b" " * 8)
_ADLER = 65521  # the modulus of RFC 1950's checksum
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12s")


class Kind(enum.Enum):
    FILE = "regular file"
    LINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


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


class TarError(InvalidInput):
    """The archive is broken or uses what no layer needs."""


@dataclass(slots=True)
class Entry:
    """One member. `size` is what the file will have, holes included; `stored` what the archive holds of it."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None
    stored: int = 0

    def __str__(self) -> str:
        return self.name.decode("utf-8", "backslashreplace")


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
            _check(block, fields[6])
            flag, size = fields[7], _number(fields[4])
            if size < 0:
                raise TarError("a member has a negative size")
            if flag == b"L":
                long_name = self._special(size).split(b"\0", 1)[0]
            elif flag == b"K":
                long_link = self._special(size).split(b"\0", 1)[0]
            elif flag == b"x":
                records += _pax_records(self._special(size))
            elif flag == b"g":
                self._defaults = _pax_records(self._special(size))
                records = list(self._defaults)
            elif flag in b"VMN" and flag:  # volume label, continuation, old long name: nothing to make
                self._skip(_padded(size))
            else:
                return self._entry(fields, size, dict(records), records, long_name, long_link)

    def _special(self, size: int) -> bytes:
        if size > SPECIAL_MAX:
            raise TarError(f"extended header of {size} bytes: more than {SPECIAL_MAX}")
        return self._take(_padded(size))[:size]

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
        name = pax.get("path") or long_name or _short_name(fields)
        if kind is None:
            raise TarError(f"member {name!r} is of unknown type {flag!r}")
        if kind is Kind.FILE and name.endswith(b"/") and flag in b"\x000":
            kind = Kind.DIRECTORY  # v7 had no other way to say so
        if "size" in pax:
            size = _decimal(pax["size"])
        stored = size if kind is Kind.FILE else 0
        self._stored, self._left = stored, _padded(stored)
        entry = Entry(
            name,
            kind,
            _number(fields[1]) & 0o7777,
            _id(pax["uid"] if "uid" in pax else fields[2], decimal="uid" in pax),
            _id(pax["gid"] if "gid" in pax else fields[3], decimal="gid" in pax),
            stored,
            _pax_time(pax["mtime"]) if "mtime" in pax else _number(fields[5]) * NS,
            link=pax.get("linkpath") or long_link or fields[8].split(b"\0", 1)[0],
            stored=stored,
        )
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.device = (_number(fields[13]), _number(fields[14]))
        if pax:
            _read_xattrs(entry, pax)
        if flag == b"S":
            self._old_sparse(entry, fields)
        elif kind is Kind.FILE and any(key.startswith("GNU.sparse.") for key in pax):
            self._pax_sparse(entry, pax, records)
        return entry

    # sparse files --------------------------------------------------------------------------------------------------------------------
    def _old_sparse(self, entry: Entry, fields: tuple[bytes, ...]) -> None:
        """GNU's first form: four pieces in the header, 21 in each block that follows it."""
        header = b"".join(fields)
        entry.size = _number(header[483:495])
        raw, more = header[386:482], header[482]
        pieces = _sparse_fields(raw)
        while more:
            block = self._take(BLOCK)
            pieces += _sparse_fields(block[:504])
            more = block[504]
            _limit_pieces(pieces)
        _set_sparse(entry, pieces)

    def _pax_sparse(self, entry: Entry, pax: dict[str, bytes], records: list[tuple[str, bytes]]) -> None:
        """GNU's pax forms 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files")."""
        if "GNU.sparse.name" in pax:
            entry.name = pax["GNU.sparse.name"]
        real = pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size"))
        if real is None:
            raise TarError(f"sparse file {entry} without a size")
        entry.size = _decimal(real)
        if pax.get("GNU.sparse.major") == b"1":
            numbers = self._map_in_data(entry)
        elif "GNU.sparse.map" in pax:
            numbers = [_decimal(part) for part in pax["GNU.sparse.map"].split(b",") if part]
        else:
            numbers = [_decimal(value) for key, value in records if key in ("GNU.sparse.offset", "GNU.sparse.numbytes")]
        if len(numbers) % 2:
            raise TarError(f"sparse file {entry} has a broken map")
        _set_sparse(entry, list(zip(numbers[::2], numbers[1::2], strict=True)))

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
                wanted = 1 + 2 * _decimal(text.split(b"\n", 1)[0])
                if wanted > 1 + 2 * SPARSE_MAX:
                    raise TarError("a sparse file has too many pieces")
        entry.stored = self._stored
        return [_decimal(line) for line in text.split(b"\n")[1:wanted]]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check(block: bytes, field_: bytes) -> None:
    try:
        stated = _number(field_)
    except TarError:
        stated = -1
    if zlib.adler32(block) & 0xFFFF != (1 + stated + sum(field_) - _SPACES) % _ADLER:  # its low half is one and the bytes' sum, in C
        signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + _SPACES
        if signed != stated:  # some old writers summed signed bytes
            raise TarError("not a tar archive, or a broken one: a header's checksum is wrong")


def _number(raw: bytes) -> int:
    """An octal field, or GNU's base-256 where the top bit is set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ((1 << (8 * len(raw) - 1)) - 1)
        if raw[0] & 0x40:
            value -= 1 << (8 * len(raw) - 1)
        if abs(value) > NUMBER_MAX:
            raise TarError("a number in a header does not fit in 63 bits")
        return value
    text = raw[:-1] if raw[-1:] == b"\0" and raw[:-1].isdigit() else raw.split(b"\0", 1)[0].strip(b" ")  # nearly all are as the first
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        raise TarError(f"a header holds {text!r} where a number belongs") from None


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 19 or int(raw) > NUMBER_MAX:
        raise TarError(f"a pax record holds {raw[:40]!r} where a number belongs")
    return int(raw)


def _id(raw: bytes, *, decimal: bool) -> int:
    value = _decimal(raw) if decimal else _number(raw)
    if not 0 <= value < 0xFFFFFFFF:  # (uid_t)-1 means "leave it" to chown(2)
        raise TarError(f"owner {value} is no user or group id")
    return value


def _pax_time(raw: bytes) -> int:
    whole, _, fraction = raw.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.lstrip(b"-")
    if not digits.isdigit() or len(digits) > 12 or (fraction and not fraction.isdigit()):
        raise TarError(f"a pax record holds {raw[:40]!r} where a time belongs")
    ns = int(digits) * NS + int(fraction[:9].ljust(9, b"0") or 0)
    return -ns if negative else ns


def _short_name(fields: tuple[bytes, ...]) -> bytes:
    name = fields[0].split(b"\0", 1)[0]
    # Only POSIX's magic has a prefix; GNU's ("ustar  ") keeps times and sparse maps there.
    if fields[9] == b"ustar\0":
        prefix = fields[15].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _pax_records(data: bytes) -> list[tuple[str, bytes]]:
    """Records of the form `<length> <key>=<value>` and a newline, one after another (pax(1), Extended Header)."""
    records: list[tuple[str, bytes]] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise TarError("broken pax records")
        end = at + int(digits)
        if end > len(data) or end <= space or data[end - 1 : end] != b"\n":
            raise TarError("broken pax records")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise TarError("broken pax records")
        records.append((key.decode("utf-8", "surrogateescape"), value))
        at = end
    return records


def _read_xattrs(entry: Entry, pax: dict[str, bytes]) -> None:
    for key, value in pax.items():
        if key.startswith("SCHILY.xattr."):
            entry.xattrs[key[13:]] = value
        elif key.startswith("LIBARCHIVE.xattr."):
            try:
                entry.xattrs.setdefault(urllib.parse.unquote(key[17:]), base64.b64decode(value + b"=" * (-len(value) % 4)))
            except binascii.Error:
                raise TarError(f"member {entry} has a broken xattr") from None


def _sparse_fields(raw: bytes) -> list[tuple[int, int]]:
    return [(_number(raw[at : at + 12]), _number(raw[at + 12 : at + 24])) for at in range(0, len(raw) - 23, 24) if raw[at] not in (0, 0x20)]


def _limit_pieces(pieces: list[tuple[int, int]]) -> None:
    if len(pieces) > SPARSE_MAX:
        raise TarError("a sparse file has too many pieces")


def _set_sparse(entry: Entry, pieces: list[tuple[int, int]]) -> None:
    """Pieces must rise, fit in the file and account for exactly the bytes that are stored."""
    _limit_pieces(pieces)
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > entry.size:
            raise TarError(f"sparse file {entry} has a broken map")
        end = offset + length
    if sum(length for _, length in pieces) != entry.stored:
        raise TarError(f"sparse file {entry} has a broken map")
    entry.sparse = pieces
