"""The distributions made of packages, and which mirrors a suite is taken from: those the host itself uses, else the distribution's own.

Read are both of apt's forms (sources.list(5)): one line a source, and deb822 stanzas. Written is deb822.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path("/etc/apt")
KEYRINGS = Path("/usr/share/keyrings")
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(\S.*)$")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Distribution:
    """`versions` are other words for suites, "latest" among them; `rolling` suites have no archives of updates.

    A mirror is told by its path, which ends as those of `archive` and `security` do. `slim`: whether there is a form without documentation.
    """

    name: str
    title: str
    archive: str
    security: str
    components: str
    suites: tuple[str, ...]
    versions: Mapping[str, str]
    keyring: Path
    keyring_from: str
    rolling: tuple[str, ...] = ()
    slim: bool = False


DEBIAN = Distribution(
    "debian",
    "Debian",
    "http://deb.debian.org/debian",
    "http://deb.debian.org/debian-security",
    "main",
    ("bullseye", "bookworm", "trixie", "forky", "sid"),
    {
        "11": "bullseye",
        "12": "bookworm",
        "13": "trixie",
        "14": "forky",
        "latest": "trixie",  # Debian 13, since August 2025
        "stable": "trixie",
        "unstable": "sid",
    },
    KEYRINGS / "debian-archive-keyring.gpg",
    "apt-get install debian-archive-keyring",
    rolling=("sid",),
    slim=True,
)
UBUNTU = Distribution(
    "ubuntu",
    "Ubuntu",
    "http://archive.ubuntu.com/ubuntu",
    "http://security.ubuntu.com/ubuntu",
    "main universe",
    ("focal", "jammy", "noble", "questing", "resolute"),
    {"20.04": "focal", "22.04": "jammy", "24.04": "noble", "25.10": "questing", "26.04": "resolute", "latest": "noble"},
    KEYRINGS / "ubuntu-archive-keyring.gpg",
    "it comes with Ubuntu's package ubuntu-keyring, on other systems ubuntu-archive-keyring; or copy the file from an Ubuntu you trust",
)
DISTRIBUTIONS = (DEBIAN, UBUNTU)


@dataclass(frozen=True, slots=True)
class Source:
    """One archive: its address and the suites taken from it."""

    uri: str
    suites: tuple[str, ...]
    distribution: Distribution = DEBIAN

    def stanza(self) -> str:
        of = self.distribution
        return f"Types: deb\nURIs: {self.uri}\nSuites: {' '.join(self.suites)}\nComponents: {of.components}\nSigned-By: {of.keyring}\n"


def sources(distribution: Distribution, suite: str, mirror: str | None, directory: Path = SOURCES) -> list[Source]:
    """What to install `suite` from. `mirror` overrules the host's choice of the main archive."""
    known = dict(_host_sources(distribution, directory))
    main = (mirror or known.get("main") or distribution.archive).rstrip("/")
    if suite in distribution.rolling:
        return [Source(main, (suite,), distribution)]
    security = (known.get("security") or distribution.security).rstrip("/")
    return [Source(main, (suite, f"{suite}-updates"), distribution), Source(security, (f"{suite}-security",), distribution)]


def _host_sources(distribution: Distribution, directory: Path) -> Iterator[tuple[str, str]]:
    """("main" or "security", address) of its archives the host has, the last found first to be overwritten by the first."""
    main, security = (f"/{uri.rpartition('/')[2]}" for uri in (distribution.archive, distribution.security))
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
        # Third parties are no mirrors of the distribution; by convention a mirror's path ends in the archive's name.
        if uri.startswith("http") and path_.endswith(main) and _SUITE.fullmatch(suite) and not suite.endswith("-security"):
            yield "main", path_
        elif uri.startswith("http") and path_.endswith(security):
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
