"""Wheels of a package index: the simple repository API, as HTML, which every index speaks (PEP 503)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from atoll.build.python.locks import File
from atoll.build.remote import download
from atoll.errors import NotFound

PAGE_MAX = 64 << 20  # bytes; the longest of PyPI's have some 10 MB
DEFAULT = "https://pypi.org/simple"


async def wheels(indexes: Sequence[str], name: str, version: str, scratch: Path) -> tuple[File, ...]:
    """The wheels of one version that the first index with that distribution has. Raises NotFound, Unavailable."""
    project = canonicalize_name(name)
    for index in indexes:
        base = f"{index.rstrip('/')}/{project}/"
        with tempfile.TemporaryDirectory(dir=scratch) as place:
            try:
                await download(base.rstrip("/"), Path(place), size_max=PAGE_MAX)
            except NotFound:
                continue
            page = await asyncio.to_thread((Path(place) / project).read_text, "utf-8", "replace")
        return tuple(file for file in _links(page, base) if _is(file.name, version))
    raise NotFound(f"no package index has {name}: asked {', '.join(indexes)}")


def _links(page: str, base: str) -> list[File]:
    parser = _Anchors()
    parser.feed(page)
    found = []
    for href in parser.links:
        url, fragment = urldefrag(urljoin(base, href))
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        found.append(File(unquote(url.rpartition("/")[2]), url, digest))
    return found


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "a" and (href := fields.get("href")) and "data-yanked" not in fields:
            self.links.append(href)


def _is(filename: str, version: str) -> bool:
    try:
        return filename.endswith(".whl") and parse_wheel_filename(filename)[1] == Version(version)
    except InvalidWheelFilename:
        return False
