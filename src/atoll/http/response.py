"""Responses, and their heads as bytes.

A body is either bytes, sent with the head in one write, or an async iterator, sent chunk by chunk as it yields. Long-lived streams that are
pushed from elsewhere (watches) use `Request.start` instead, and return None.

The head is built from caches: the status line by status, the field block by its tuple of pairs, since a service answers with few different
ones.
"""

from __future__ import annotations

import http
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from typing import Any

import orjson

HeaderPairs = tuple[tuple[str, str], ...]
JSON_HEADERS: HeaderPairs = (("Content-Type", "application/json"),)
BODILESS = frozenset({204, 304})  # RFC 9110, 6.4.1; 1xx never come through here
CACHED_HEADERS_MAX = 512  # field blocks kept encoded; those with an ETag or a date push each other out

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class Response:
    """What a handler returns. `headers` need no Content-Length, Transfer-Encoding, Connection or Date: the server adds them.

    A Content-Length among them is kept: for an iterator body it replaces the chunked coding, for HEAD it tells the length not sent.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, headers: Iterable[tuple[str, str]] = (), body: bytes | AsyncIterator[bytes] = b"") -> None:
        self.status = status
        self.headers: HeaderPairs = headers if type(headers) is tuple else tuple(headers)
        self.body = body

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def json_response(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """The value as JSON by orjson; an `orjson.Fragment` inside passes through as encoded."""
    return Response(status, (*JSON_HEADERS, *headers) if headers else JSON_HEADERS, orjson.dumps(value))


def text_response(text: str, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    return Response(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), text.encode())


def status_line(status: int, reason: bytes = b"") -> bytes:
    """With `reason` in place of the usual words, which no client may read anything from (RFC 9112, 4)."""
    if reason:
        return b"HTTP/1.1 %d %b\r\n" % (status, reason)
    return STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def encode_headers(pairs: HeaderPairs) -> tuple[bytes, frozenset[str]]:
    """The fields as bytes, and the framing names among them ("content-length", "date", ...).

    Raises ValueError for a CR, LF or NUL in a field: what a handler echoes must never start a field or a response of its own.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in pairs])
    if text.count("\n") != len(pairs) or text.count("\r") != len(pairs) or "\0" in text:
        raise ValueError(f"a header field holds a line break or NUL: {pairs!r}")
    return text.encode("latin-1", "replace"), frozenset(name.lower() for name, _ in pairs)
