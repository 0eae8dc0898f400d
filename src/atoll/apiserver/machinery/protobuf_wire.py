"""Protobuf's wire format, written: a field is its number and wire type, then a varint or a length and so many bytes."""

from __future__ import annotations

_VARINT_SPACE = 1 << 64


def nested(number: int, payload: bytes) -> bytes:
    """A message, a text or bytes; an empty one is there too."""
    return b"%b%b%b" % (varint(number << 3 | 2), varint(len(payload)), payload)


def text(number: int, value: str) -> bytes:
    """Nothing for an empty one."""
    return nested(number, value.encode()) if value else b""


def integer(number: int, value: int) -> bytes:
    """Negative ones take ten bytes, as int32 and int64 do."""
    return varint(number << 3) + varint(value % _VARINT_SPACE)


def varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
