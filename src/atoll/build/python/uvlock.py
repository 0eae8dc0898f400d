"""uv.lock: a graph of packages for all platforms; those the project needs on one are walked to from the project itself."""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from atoll.build.python.locks import File, Locked, applies
from atoll.build.python.target import Target
from atoll.errors import InvalidInput

SUPPORTED = 1
OWN = ("virtual", "editable", "directory")  # sources that are a directory here
ELSEWHERE = {"git": "a git checkout", "url": "an archive at a URL", "path": "a file beside the project", "directory": "a directory"}


def read(document: dict[str, Any], project: str, target: Target, extras: Sequence[str]) -> list[Locked]:
    """What PROJECT and its EXTRAS need. Raises InvalidInput."""
    if document.get("version") != SUPPORTED:
        raise InvalidInput(f"uv.lock has version {document.get('version')}, of which only {SUPPORTED} is known")
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in document.get("package") or ():
        packages.setdefault(package["name"], []).append(package)
    root = next((one for one in packages.get(canonicalize_name(project), ()) if any(one["source"].get(kind) for kind in OWN)), None)
    if root is None:
        raise InvalidInput(f"uv.lock does not know the project {project}: run `uv lock`")
    unknown = set(extras) - set(root.get("optional-dependencies") or {})
    if unknown:
        raise InvalidInput(f"the project has no extra {', '.join(sorted(unknown))}")
    waiting = deque([(root, ("", *extras))])
    seen: set[tuple[str, str, str]] = set()
    found: dict[tuple[str, str], Locked] = {}
    while waiting:
        package, wanted = waiting.popleft()
        for extra in wanted:
            key = package["name"], str(package.get("version", "")), extra
            if key in seen:
                continue
            seen.add(key)
            lines = package.get("dependencies") if not extra else (package.get("optional-dependencies") or {}).get(extra)
            for line in lines or ():
                if applies(line.get("marker"), target):
                    waiting.append((_package(packages, line), ("", *line.get("extra", ()))))
        if package is not root:
            found.setdefault((package["name"], str(package.get("version", ""))), _locked(package))
    return list(found.values())


def _package(packages: dict[str, list[dict[str, Any]]], line: dict[str, Any]) -> dict[str, Any]:
    for package in packages.get(line["name"], ()):
        if line.get("version") in (None, package.get("version")) and line.get("source") in (None, package["source"]):
            return package
    raise InvalidInput(f"uv.lock refers to {line['name']}, which it does not have: run `uv lock`")


def _locked(package: dict[str, Any]) -> Locked:
    source = package["source"]
    instead = next((what for kind, what in ELSEWHERE.items() if kind in source), "a source archive alone")
    return Locked(package["name"], str(package.get("version", "")), tuple(_wheels(package)), instead)


def _wheels(package: dict[str, Any]) -> Iterator[File]:
    for wheel in package.get("wheels") or ():
        url = wheel.get("url")
        if url is None:
            continue  # a file beside the project: nothing the engine could fetch
        algorithm, _, digest = wheel.get("hash", "").partition(":")
        if algorithm not in ("sha256", ""):
            raise InvalidInput(f"uv.lock has a hash of {package['name']} that is no sha256: {wheel['hash']}")
        yield File(unquote(posixpath.basename(urlsplit(url).path)), url, digest, wheel.get("size") or 0)
