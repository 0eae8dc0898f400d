"""Request heads and chunked bodies, by httptools (llhttp, as in Node.js).

The parser is given exactly one head at a time: the connection cuts at the blank line. So a pipelined request or the first bytes of a
hijacked connection never reach it, and its quirk of reporting an upgrade before the body is read does no harm: a body of known length is
counted by the connection, and only chunked bodies come back here.

What lets two parsers disagree on where a request ends (request smuggling, RFC 9112, 11.2) is refused: Content-Length beside
Transfer-Encoding, two lengths, a coding other than chunked, bare line feeds, a missing or double Host.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from atoll.http.errors import ProtocolError

METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")}
FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
OVERHEAD_PER_BYTE = 16  # bytes of chunk framing allowed for a byte of body; one-byte chunks cost 5, extensions and trailers the rest


class RefusedHead(ProtocolError):
    """A head that gets an error response of its own; `status` says which."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestParser:
    """After `parse_head` the attributes describe the request; `feed_chunked` then passes its body to `on_piece`."""

    __slots__ = (
        "_budget", "_framing", "_in_head", "_parser", "_url", "body_complete",
        "chunked", "expects_continue", "is_http10", "keep_alive", "length", "method", "on_piece", "pairs", "target",
    )  # fmt: skip

    def __init__(self, on_piece: Callable[[bytes], None]) -> None:
        self.on_piece = on_piece
        self._parser = httptools.HttpRequestParser(self)
        self.pairs: list[tuple[bytes, bytes]] = []
        self.body_complete = True
        self.keep_alive = True
        self.chunked = False
        self.length = 0
        self._in_head = True

    def parse_head(self, head: bytes, trailer_budget: int) -> None:
        """Parse one whole head, its blank line included. Raises RefusedHead.

        `trailer_budget` bounds what a chunked body may spend on framing, extensions and trailers beyond its data.
        """
        if self.chunked or self.length:
            self._parser = httptools.HttpRequestParser(self)  # the old one still expects a body
        self._url = b""
        self.pairs = []
        self._framing: list[tuple[bytes, bytes]] = []
        self._in_head = True
        self.body_complete = False
        self.chunked = False
        self.length = 0
        self.expects_continue = False
        parser = self._parser
        upgrade = False
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            upgrade = True  # only says that the client asks for one; the handler decides
        except httptools.HttpParserInvalidMethodError:
            raise RefusedHead(501, "unknown method") from None
        except httptools.HttpParserError as error:
            raise RefusedHead(400, f"malformed request: {error}") from None
        if self._in_head:
            raise RefusedHead(400, "malformed request: the head ends early")
        name = parser.get_method()
        self.method = METHODS.get(name) or name.decode("ascii")
        self._read_target()
        self._read_framing()
        self._budget = trailer_budget
        if upgrade and self.chunked:
            self._expect_chunks()

    def feed_chunked(self, data: bytes) -> None:
        """Pass pieces of a chunked body on; `body_complete` tells the end. Raises ProtocolError.

        Bytes beyond the end are an error too: where the next request starts in them is not known here.
        """
        self._budget -= len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise ProtocolError(f"malformed chunked body: {error}") from None
        if self._budget < 0:
            raise ProtocolError("the chunked body has more framing than data")

    def _expect_chunks(self) -> None:
        """Llhttp has skipped the body of a request that asks for an upgrade: begin a new parser just before that body."""
        keep_alive = self.keep_alive
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.keep_alive = keep_alive
        self.body_complete = False

    def _read_target(self) -> None:
        try:
            target = self._url.decode()
        except UnicodeDecodeError:
            raise RefusedHead(400, "malformed request: the target is not UTF-8") from None
        if not target.startswith("/") and "://" in target:  # absolute-form, which every server must take (RFC 9112, 3.2.2)
            _, slash, path = target.partition("://")[2].partition("/")
            target = slash + path or "/"
        self.target = target

    def _read_framing(self) -> None:
        version = self._parser.get_http_version()
        self.is_http10 = version == "1.0"
        if not self.is_http10 and version != "1.1":
            raise RefusedHead(505, f"HTTP/{version} is not spoken here")
        hosts = 0
        for name, value in self._framing:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self.length = int(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or self.chunked:
                    raise RefusedHead(501, "the only transfer coding known here is chunked")
                if self.is_http10:
                    raise RefusedHead(400, "malformed request: HTTP/1.0 has no transfer codings")
                self.chunked = True
            elif value.lower() != b"100-continue":
                raise RefusedHead(417, "the only expectation known here is 100-continue")
            else:
                self.expects_continue = not self.is_http10
        if hosts > 1 or (hosts == 0 and not self.is_http10):
            raise RefusedHead(400, "malformed request: exactly one Host field is required")

    # httptools' callbacks

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which nobody here reads
            self.pairs.append((name, value))
            name = name.lower()
            if name in FRAMING:
                self._framing.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._budget += OVERHEAD_PER_BYTE * len(body)
        self.on_piece(body)

    def on_message_complete(self) -> None:
        self.body_complete = True
