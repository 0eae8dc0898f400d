"""The two dialects of byte ranges: RFC 9110's in downloads, the distribution protocol's own in uploads."""

from __future__ import annotations

import re
from typing import NamedTuple

from atoll.registry.errors import Code, Refused

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
_CONTENT_RANGE = re.compile(r"(?:bytes )?([0-9]{1,19})-([0-9]{1,19})(?:/(?:\*|[0-9]{1,19}))?")


class Part(NamedTuple):
    """Bytes from `start`, `length` of them."""

    start: int
    length: int


def asked(header: str | None, size: int) -> Part | None:
    """What a Range field asks of SIZE bytes; None for all of them, which is also the answer to what we do not serve: several ranges,
    other units (RFC 9110, 14.2). Raises Refused with 416.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        end = min(int(last), size - 1) if last else size - 1
    elif last:  # the last so many bytes
        start, end = max(0, size - int(last)), size - 1
    else:
        return None
    if start > end:
        raise Refused(Code.SIZE_INVALID, "no such range", status=416, headers=(("Content-Range", f"bytes */{size}"),))
    return Part(start, end - start + 1)


def sent(header: str | None) -> Part | None:
    """What a Content-Range of an upload says it carries: `0-99`, ends included, without a unit as the specification has it or with one.

    Raises Refused BLOB_UPLOAD_INVALID.
    """
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if not match or int(match[2]) < int(match[1]):
        raise Refused(Code.BLOB_UPLOAD_INVALID, f"Content-Range {header!r} is not of the form first-last", status=416)
    return Part(int(match[1]), int(match[2]) - int(match[1]) + 1)
