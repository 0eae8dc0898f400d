"""Which mirrors a Debian suite is taken from: those the host itself uses, else Debian's own.

Read are both of apt's forms (sources.list(5)): one line a source, and deb822 stanzas. Written is deb822.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ARCHIVE = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = Path("/etc/apt")
ROLLING = ("sid", "unstable")  # suites without updates and security archives
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(\S.*)$")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: its address and the suites taken from it."""

    uri: str
    suites: tuple[str, ...]

    def stanza(self) -> str:
        return f"Types: deb\nURIs: {self.uri}\nSuites: {' '.join(self.suites)}\nComponents: main\nSigned-By: {KEYRING}\n"


def sources(suite: str, mirror: str | None, directory: Path = SOURCES) -> list[Source]:
    """What to install `suite` from. `mirror` overrules the host's choice of the main archive."""
    known = dict(_host_sources(directory))
    main = (mirror or known.get("main") or ARCHIVE).rstrip("/")
    if suite in ROLLING:
        return [Source(main, (suite,))]
    return [Source(main, (suite, f"{suite}-updates")), Source((known.get("security") or SECURITY).rstrip("/"), (f"{suite}-security",))]


def _host_sources(directory: Path) -> Iterator[tuple[str, str]]:
    """("main" or "security", address) of Debian archives the host has, the last found first to be overwritten by the first."""
    found = []
    for path in [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        pairs = _stanzas(text) if path.suffix == ".sources" else _lines(text)
        found += [(uri, one) for uri, suites in pairs for one in suites]
    for uri, suite in reversed(found):
        path_ = uri.rstrip("/")
        # Third parties are no Debian mirrors; by convention a mirror's path ends in the archive's name.
        if uri.startswith("http") and path_.endswith("/debian") and _SUITE.fullmatch(suite):
            yield "main", path_
        elif uri.startswith("http") and path_.endswith("/debian-security"):
            yield "security", path_


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        if match := _ONE_LINE.match(line):
            yield match[1], [match[2]]


def _stanzas(text: str) -> Iterator[tuple[str, list[str]]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = {}
        for line in stanza.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line.startswith(("#", " ", "\t")):
                fields[key.strip().lower()] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            for uri in fields.get("uris", "").split():
                yield uri, fields.get("suites", "").split()
