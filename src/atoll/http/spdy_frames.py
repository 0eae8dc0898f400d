"""SPDY/3.1 on the wire: frames and compressed header blocks (draft-mbelshe-httpbis-spdy-00, sections 2.2 and 2.6).

    control: 1|version 15|type 16|flags 8|length 24|payload        data: 0|stream id 31|flags 8|length 24|payload

Header blocks of one direction share one zlib stream, primed with the draft's dictionary, so a block that cannot be read ends the session.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atoll.http.errors import ProtocolError
from atoll.http.headers import Headers

VERSION = 3
CONTROL_BIT = 0x8000_0000
ID_MASK = 0x7FFF_FFFF
FIN = 0x01
UNIDIRECTIONAL = 0x02
SETTING_INITIAL_WINDOW = 7
CONTROL_MAX = 64 * 1024  # bytes of a control frame we take
DATA_MAX = 1024 * 1024  # bytes of a data frame we take; kubectl sends 32 KiB
HEADERS_MAX = 64 * 1024  # bytes of a header block once inflated


class FrameType(enum.IntEnum):
    DATA = 0  # not a control type on the wire; so that every frame has one
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(enum.IntEnum):
    """RST_STREAM status codes, 2.6.3."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    FLOW_CONTROL_ERROR = 7
    STREAM_ALREADY_CLOSED = 9


class Frame(NamedTuple):
    """`stream` is 0 where a type has none; `payload` starts after the stream id of types that have one."""

    type: int
    stream: int
    flags: int
    payload: bytes


WITH_STREAM = frozenset({FrameType.SYN_STREAM, FrameType.SYN_REPLY, FrameType.RST_STREAM, FrameType.HEADERS, FrameType.WINDOW_UPDATE})

# The draft's dictionary, 2.6.10.1: names and values with their 32-bit lengths, then plain text. Its Adler-32 is 0xe3c6a7c2.
_DICTIONARY_WORDS = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|authorization|"
    "cache-control|connection|content-base|content-encoding|content-language|content-length|content-location|content-md5|content-range|"
    "content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|"
    "location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|"
    "upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|keep-alive|origin"
)
_DICTIONARY_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found"
    "500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,"
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in _DICTIONARY_WORDS.split("|")) + _DICTIONARY_TEXT.encode()


def control_frame(kind: FrameType, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


def data_frame(stream: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(data)) + data


class FrameParser:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. ProtocolError for another version or a frame that is too large."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 8:
            word, rest = struct.unpack_from(">II", buffer, start)
            length = rest & 0xFF_FFFF
            is_control = bool(word & CONTROL_BIT)
            if is_control and word >> 16 & 0x7FFF != VERSION:
                raise ProtocolError(f"SPDY version {word >> 16 & 0x7FFF} is not spoken here")
            if length > (CONTROL_MAX if is_control else DATA_MAX):
                raise ProtocolError(f"a SPDY frame of {length} bytes is too large")
            end = start + 8 + length
            if len(buffer) < end:
                break
            payload = bytes(memoryview(buffer)[start + 8 : end])
            start = end
            yield _control(word & 0xFFFF, rest >> 24, payload) if is_control else Frame(FrameType.DATA, word, rest >> 24, payload)
        del buffer[:start]


def _control(kind: int, flags: int, payload: bytes) -> Frame:
    if kind not in WITH_STREAM:
        return Frame(kind, 0, flags, payload)
    if len(payload) < (8 if kind in (FrameType.RST_STREAM, FrameType.WINDOW_UPDATE) else 4):
        raise ProtocolError(f"a SPDY {FrameType(kind).name} frame is too short")
    return Frame(kind, int.from_bytes(payload[:4], "big") & ID_MASK, flags, payload[4:])


class HeaderCodec:
    """Both directions' header compression."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(level=6, zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def encode(self, headers: Iterable[tuple[str, str]]) -> bytes:
        """Names in lower case; the values of a repeated name joined by NUL."""
        merged: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            merged[key] = f"{merged[key]}\0{value}" if key in merged else value
        block = [struct.pack(">I", len(merged))]
        for text in (text for pair in merged.items() for text in pair):
            data = text.encode()
            block += (struct.pack(">I", len(data)), data)
        return self._deflate.compress(b"".join(block)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def decode(self, block: bytes) -> Headers:
        """ProtocolError for what does not inflate, inflates beyond HEADERS_MAX, or is no header block."""
        try:
            data = self._inflate.decompress(block, HEADERS_MAX)
        except zlib.error as error:
            raise ProtocolError(f"a SPDY header block does not inflate: {error}") from None
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"a SPDY header block has more than {HEADERS_MAX} bytes")
        try:
            return Headers(list(_pairs(data)))
        except (struct.error, UnicodeDecodeError):
            raise ProtocolError("a SPDY header block is malformed") from None


def _pairs(data: bytes) -> Iterator[tuple[str, str]]:
    (count,) = struct.unpack_from(">I", data)
    at = 4
    for _ in range(count):
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from(">I", data, at)
            if at + 4 + length > len(data):
                raise struct.error("text beyond the block")
            texts.append(data[at + 4 : at + 4 + length].decode())
            at += 4 + length
        for value in texts[1].split("\0"):
            yield texts[0], value
