"""What a project's lock asks for, and the one wheel of each that a base image can use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from atoll.build.python.target import Target
from atoll.errors import InvalidInput

NAMED = 4  # wheels an error lists


@dataclass(frozen=True, slots=True)
class File:
    """A wheel to be had at `url`; `sha256` is its digest in hex, "" where nobody has said."""

    name: str
    url: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Locked:
    """One version of one distribution. `instead`: what there is of it where there are no wheels ("a git checkout")."""

    name: str
    version: str
    wheels: tuple[File, ...]
    instead: str = "a source archive alone"

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Wheel:
    locked: Locked
    file: File


def applies(marker: str | None, target: Target, **more: Any) -> bool:
    """Whether a PEP 508 marker holds in the image. Raises InvalidInput."""
    if not marker:
        return True
    environment: Mapping[str, Any] = {**target.markers(), "extra": "", **more}
    try:
        return Marker(marker).evaluate(dict(environment), context="lock_file" if "extras" in more else "metadata")
    except (InvalidMarker, UndefinedEnvironmentName) as error:
        raise InvalidInput(f"the lock has a marker that cannot be read: {marker}: {error}") from None


def choose(wanted: Iterable[Locked], target: Target) -> list[Wheel]:
    """The best wheel of each, the largest first: what weighs most is what images share first. Raises InvalidInput."""
    ranks = {tag: rank for rank, tag in enumerate(target.tags())}
    chosen = [Wheel(one, _best(one, ranks, target)) for one in wanted]
    return sorted(chosen, key=lambda wheel: (-wheel.file.size, wheel.locked.name, wheel.locked.version))


def _best(locked: Locked, ranks: Mapping[Tag, int], target: Target) -> File:
    found: list[tuple[int, str, File]] = []
    for file in locked.wheels:
        try:
            _, _, _, tags = parse_wheel_filename(file.name)
        except InvalidWheelFilename as error:
            raise InvalidInput(f"the lock names a wheel of {locked} that is none: {file.name}: {error}") from None
        usable = [ranks[tag] for tag in tags if tag in ranks]
        if usable:
            found.append((min(usable), file.name, file))
    if found:
        return min(found, key=lambda one: one[:2])[2]
    raise InvalidInput(f"{locked} has no wheel for {target}: there is {_shown(locked)}. {_NEXT}")


_NEXT = (
    "Lock another version, choose another base image with --base, or build a wheel of it; `atoll build` with a Dockerfile can compile it"
)


def _shown(locked: Locked) -> str:
    names: Sequence[str] = sorted(file.name for file in locked.wheels)
    if not names:
        return locked.instead
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
