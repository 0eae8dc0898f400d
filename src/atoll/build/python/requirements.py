"""requirements.txt as a lock: every line pins one version, by == or by a wheel's URL (pip's "Requirements File Format")."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from atoll.build.python.index import DEFAULT, wheels
from atoll.build.python.locks import File, Locked, applies
from atoll.build.python.target import Target
from atoll.errors import InvalidInput

DEPTH_MAX = 10
COMMENT = re.compile(r"(^|\s)#.*$")
PIN = "=="


@dataclass(slots=True)
class Pinned:
    """One line, and the digests it allows (none: any)."""

    requirement: Requirement
    version: str
    hashes: frozenset[str]


@dataclass(slots=True)
class Requirements:
    pins: list[Pinned] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    more_indexes: list[str] = field(default_factory=list)


def parse(name: str, read: Callable[[str], str | None], depth: int = 0) -> Requirements:
    """The file NAME, and those it includes. Raises InvalidInput with file and line."""
    text = read(name)
    if text is None or depth > DEPTH_MAX:
        raise InvalidInput(f"{name} is not there, or is included too deeply")
    found = Requirements()
    for number, line in _lines(text):
        where = f"{name}, line {number}"
        if line.startswith("-"):
            _option(line, where, name, read, depth, found)
        else:
            found.pins.append(_pin(line, where))
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    whole, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        if line.endswith("\\"):
            whole += line[:-1] + " "
            continue
        done = COMMENT.sub("", whole + line).strip()
        if done:
            yield start, done
        whole, start = "", 0


def _option(line: str, where: str, name: str, read: Callable[[str], str | None], depth: int, found: Requirements) -> None:
    option, _, value = line.replace("=", " ", 1).partition(" ")
    value = value.strip()
    if option in ("-r", "--requirement"):
        inner = parse(posixpath.normpath(posixpath.join(posixpath.dirname(name), value)), read, depth + 1)
        found.pins += inner.pins
        found.indexes += inner.indexes
        found.more_indexes += inner.more_indexes
    elif option in ("-i", "--index-url"):
        found.indexes.append(value)
    elif option == "--extra-index-url":
        found.more_indexes.append(value)
    elif option in ("-e", "--editable"):
        if value not in (".", "./"):
            raise InvalidInput(f"{where}: {line}: only the project itself can be editable")
    elif option not in ("--only-binary", "--prefer-binary", "--require-hashes", "--no-binary", "--trusted-host"):
        raise InvalidInput(f"{where}: option {option} is not supported")


def _pin(line: str, where: str) -> Pinned:
    words = shlex.split(line, posix=False)
    hashes = [word.removeprefix("--hash=") for word in words if word.startswith("--hash=")]
    text = " ".join(word for word in words if not word.startswith("--hash="))
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise InvalidInput(f"{where}: {text} is no requirement: {str(error).splitlines()[0]}") from None
    digests = frozenset(value.removeprefix("sha256:") for value in hashes if value.startswith("sha256:"))
    if hashes and not digests:
        raise InvalidInput(f"{where}: {requirement.name} has no sha256 among its hashes")
    if requirement.url:
        return Pinned(requirement, "", digests)
    pins = [spec for spec in requirement.specifier if spec.operator in (PIN, "===") and not spec.version.endswith("*")]
    if len(pins) != 1 or len(requirement.specifier) != 1:
        raise InvalidInput(
            f"{where}: {text} does not pin a version, so builds would differ. Lock it: `uv lock`, "
            f"`uv pip compile pyproject.toml -o requirements.txt`, or `pip freeze > requirements.txt`"
        )
    return Pinned(requirement, pins[0].version, digests)


async def read(found: Requirements, target: Target, indexes: Sequence[str], scratch: Path) -> list[Locked]:
    """The wheels of every pin that applies. INDEXES count where the file names none. Raises InvalidInput, NotFound, Unavailable."""
    asked = [*(found.indexes[-1:] or indexes or [DEFAULT]), *found.more_indexes]
    locked = []
    for pin in found.pins:
        requirement = pin.requirement
        if not applies(str(requirement.marker or ""), target):
            continue
        url = requirement.url
        files = (_at(url),) if url else await wheels(asked, requirement.name, pin.version, scratch)
        single = next(iter(pin.hashes)) if len(pin.hashes) == 1 else ""
        stated = [File(file.name, file.url, file.sha256 or single, file.size) for file in files]
        usable = tuple(file for file in stated if not pin.hashes or file.sha256 in pin.hashes)
        if files and not usable:
            raise InvalidInput(f"none of the wheels of {requirement.name} {pin.version} has a hash that the requirements name")
        locked.append(Locked(requirement.name, pin.version, usable))
    return locked


def _at(url: str) -> File:
    bare, fragment = urldefrag(url)
    name = unquote(posixpath.basename(urlsplit(bare).path))
    if not name.endswith(".whl"):
        raise InvalidInput(f"{url} is no wheel: only wheels can be installed")
    return File(name, bare, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else "")
