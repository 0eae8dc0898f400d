"""Fetching what a Dockerfile or a client names by URL: http and https, in bounded time and space.

A redirect may lead to http and https only, since the opener knows nothing else, and nothing is asked of link-local addresses, where clouds
keep their machines' credentials: the peer is looked at when the connection stands, so that no name can be made to lead there meanwhile.
The environment's proxies hold.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from atoll.errors import DigestMismatch, Forbidden, InvalidInput, LimitExceeded, NotFound, Unavailable
from atoll.images.threads import in_thread
from atoll.units import NS

SIZE_MAX = 10 << 30  # bytes
STALL_S = 60.0  # without a byte
TIME_MAX_S = 3600.0  # for all of it
READ = 1 << 20
ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
CHECKSUM = re.compile(r"([a-z0-9]+):([0-9a-f]+)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checksum:
    algorithm: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        match = CHECKSUM.match(text)
        if not match or ALGORITHMS.get(match[1]) != len(match[2]):
            raise InvalidInput(f"invalid checksum {text}: write sha256: and 64 hexadecimal digits")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file `name` in the directory it was fetched to."""

    name: str
    modified_ns: int
    content_type: str


async def download(url: str, directory: Path, checksum: Checksum | None = None, *, size_max: int = SIZE_MAX) -> Fetched:
    """Fetches URL into DIRECTORY, under the last name of its path. Cancelled, it stops at the next piece.

    Raises InvalidInput, NotFound, Forbidden, Unavailable, LimitExceeded, DigestMismatch, each naming the URL.
    """
    name = file_name(url)
    stopped = threading.Event()
    try:
        return await in_thread(lambda: _download(url, directory / name, checksum, size_max, stopped.is_set), stopped.set)
    except urllib.error.HTTPError as error:
        error.close()
        kind = NotFound if error.code in (404, 410) else Forbidden if error.code in (401, 403) else Unavailable
        raise kind(f"failed to load {url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Unavailable(f"failed to load {url}: {reason}") from error


def file_name(url: str) -> str:
    """The last name of the URL's path. Raises InvalidInput where it has none."""
    try:
        path = urllib.parse.urlsplit(url).path
    except ValueError as error:
        raise InvalidInput(f"invalid URL {url}: {error}") from error
    name = urllib.parse.unquote(path.rpartition("/")[2])
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise InvalidInput(f"cannot determine filename for source {url}")
    return name


def _download(url: str, target: Path, checksum: Checksum | None, size_max: int, is_stopped: Callable[[], bool]) -> Fetched:
    end = time.monotonic() + TIME_MAX_S
    digest = hashlib.new(checksum.algorithm if checksum else "sha256")
    request = urllib.request.Request(url, headers={"User-Agent": "atoll", "Accept-Encoding": "identity"})  # noqa: S310  the opener is ours
    with _opener().open(request, timeout=STALL_S) as response, target.open("wb") as file:
        left = size_max
        while data := response.read1(READ):
            left -= len(data)
            if left < 0:
                raise LimitExceeded(f"failed to load {url}: it is larger than {size_max >> 20} MB")
            if is_stopped() or time.monotonic() > end:
                raise Unavailable(f"failed to load {url}: it took more than {TIME_MAX_S:g} s")
            digest.update(data)
            file.write(data)
        length = response.headers.get("Content-Length")
        if length is not None and int(length) != size_max - left:
            raise Unavailable(f"failed to load {url}: it ended after {size_max - left} of {length} bytes")
        modified, kind = response.headers.get("Last-Modified"), response.headers.get_content_type()
    if checksum is not None and digest.hexdigest() != checksum.value:
        raise DigestMismatch(f"digest mismatch for {url}: it is {checksum.algorithm}:{digest.hexdigest()}, expected {checksum}")
    return Fetched(target.name, _time(modified), kind)


def _time(text: str | None) -> int:
    try:
        return int(email.utils.parsedate_to_datetime(text or "").timestamp()) * NS
    except (ValueError, TypeError):
        return 0  # no time at all is the same for every build


def _opener() -> urllib.request.OpenerDirector:
    """Without the file:, ftp: and data: that urllib's own opener would follow."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _HTTPHandler(),
        _HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _refuse_link_local(connection: socket.socket) -> None:
    address = ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_link_local or mapped.is_multicast:
        connection.close()
        raise Forbidden(f"the address {address} is of this link alone: nothing is fetched from there")


class _HTTPConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _refuse_link_local(self.sock)


class _HTTPSConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _refuse_link_local(self.sock)


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(cast(Any, _HTTPConnection), req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(cast(Any, _HTTPSConnection), req, context=self._context)  # type: ignore[attr-defined]
