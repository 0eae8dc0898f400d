"""The fields of tar headers and pax records, read from an archive nobody vouches for: every function raises TarError."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
import zlib

from atoll.images.tar import BLOCK, NS, Entry, TarError

NUMBER_MAX = (1 << 63) - 1
SPARSE_MAX = 1 << 16  # pieces of a sparse file
_SPACES = sum(b" " * 8)
_ADLER = 65521  # the modulus of RFC 1950's checksum


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def check(block: bytes, field_: bytes) -> None:
    try:
        stated = number(field_)
    except TarError:
        stated = -1
    if zlib.adler32(block) & 0xFFFF != (1 + stated + sum(field_) - _SPACES) % _ADLER:  # its low half is one and the bytes' sum, in C
        signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + _SPACES
        if signed != stated:  # some old writers summed signed bytes
            raise TarError("not a tar archive, or a broken one: a header's checksum is wrong")


def number(raw: bytes) -> int:
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


def decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 19 or int(raw) > NUMBER_MAX:
        raise TarError(f"a pax record holds {raw[:40]!r} where a number belongs")
    return int(raw)


def owner(raw: bytes, *, pax: bool) -> int:
    value = decimal(raw) if pax else number(raw)
    if not 0 <= value < 0xFFFFFFFF:  # (uid_t)-1 means "leave it" to chown(2)
        raise TarError(f"owner {value} is no user or group id")
    return value


def pax_time(raw: bytes) -> int:
    whole, _, fraction = raw.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.lstrip(b"-")
    if not digits.isdigit() or len(digits) > 12 or (fraction and not fraction.isdigit()):
        raise TarError(f"a pax record holds {raw[:40]!r} where a time belongs")
    ns = int(digits) * NS + int(fraction[:9].ljust(9, b"0") or 0)
    return -ns if negative else ns


def short_name(fields: tuple[bytes, ...]) -> bytes:
    name = fields[0].split(b"\0", 1)[0]
    # Only POSIX's magic has a prefix; GNU's ("ustar  ") keeps times and sparse maps there.
    if fields[9] == b"ustar\0":
        prefix = fields[15].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def pax_records(data: bytes) -> list[tuple[str, bytes]]:
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


def read_xattrs(entry: Entry, pax: dict[str, bytes]) -> None:
    for key, value in pax.items():
        if key.startswith("SCHILY.xattr."):
            entry.xattrs[key[13:]] = value
        elif key.startswith("LIBARCHIVE.xattr."):
            try:
                entry.xattrs.setdefault(urllib.parse.unquote(key[17:]), base64.b64decode(value + b"=" * (-len(value) % 4)))
            except binascii.Error:
                raise TarError(f"member {entry} has a broken xattr") from None


def sparse_fields(raw: bytes) -> list[tuple[int, int]]:
    return [(number(raw[at : at + 12]), number(raw[at + 12 : at + 24])) for at in range(0, len(raw) - 23, 24) if raw[at] not in (0, 0x20)]


def limit_pieces(pieces: list[tuple[int, int]]) -> None:
    if len(pieces) > SPARSE_MAX:
        raise TarError("a sparse file has too many pieces")


def set_sparse(entry: Entry, pieces: list[tuple[int, int]]) -> None:
    """Pieces must rise, fit in the file and account for exactly the bytes that are stored."""
    limit_pieces(pieces)
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > entry.size:
            raise TarError(f"sparse file {entry} has a broken map")
        end = offset + length
    if sum(length for _, length in pieces) != entry.stored:
        raise TarError(f"sparse file {entry} has a broken map")
    entry.sparse = pieces
