"""pylock.toml (PEP 751): a list of packages, each with a marker that says where it is wanted."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.specifiers import SpecifierSet

from atoll.build.python.locks import File, Locked, applies
from atoll.build.python.target import Target
from atoll.errors import InvalidInput

MAJOR = "1."


def read(document: dict[str, Any], target: Target, extras: Sequence[str]) -> list[Locked]:
    """Raises InvalidInput."""
    version = str(document.get("lock-version", ""))
    if not version.startswith(MAJOR):
        raise InvalidInput(f"pylock.toml has lock-version {version or 'none'}, of which only {MAJOR}x is known")
    unknown = set(extras) - set(document.get("extras") or ())
    if unknown:
        raise InvalidInput(f"pylock.toml has no extra {', '.join(sorted(unknown))}")
    environments = document.get("environments") or ()
    if environments and not any(applies(marker, target) for marker in environments):
        raise InvalidInput(f"pylock.toml was not made for {target}: it is for {' or '.join(environments)}")
    required = str(document.get("requires-python", ""))
    if not SpecifierSet(required).contains(target.markers()["python_full_version"], prereleases=True):
        raise InvalidInput(f"pylock.toml requires Python {required}, but the base image has {target.version}")
    more = {"extras": set(extras), "dependency_groups": set(document.get("default-groups") or ())}
    return [
        Locked(package["name"], str(package.get("version", "")), tuple(_wheels(package)), _instead(package))
        for package in document.get("packages") or ()
        if applies(package.get("marker"), target, **more) and (package.get("directory") or {}).get("path") != "."
    ]


def _wheels(package: dict[str, Any]) -> Iterator[File]:
    for wheel in package.get("wheels") or ():
        url = wheel.get("url")
        if url is None:
            continue  # a file beside the project: nothing the engine could fetch
        digest = (wheel.get("hashes") or {}).get("sha256")
        if not digest:
            raise InvalidInput(f"pylock.toml has no sha256 of a wheel of {package['name']}: lock again")
        yield File(wheel.get("name") or unquote(posixpath.basename(urlsplit(url).path)), url, digest, wheel.get("size") or 0)


def _instead(package: dict[str, Any]) -> str:
    kinds = {"vcs": "a checkout", "directory": "a directory", "archive": "an archive at a URL"}
    return next((what for kind, what in kinds.items() if kind in package), "a source archive alone")
