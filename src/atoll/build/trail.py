"""The steps one build has come through, and how each follows from another: what a cache for others is written from."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.build.cache import Entry


@dataclass(frozen=True, slots=True)
class Passed:
    """A step, done or found done; `parent` is the key of the state it began with."""

    entry: Entry
    parent: str
    instruction: str


class Trail:
    """Of one build. A step comes after those it follows from."""

    def __init__(self) -> None:
        self._passed: dict[str, Passed] = {}

    def add(self, passed: Passed) -> None:
        self._passed.setdefault(passed.entry.key, passed)

    def all(self) -> list[Passed]:
        return list(self._passed.values())

    def leading_to(self, key: str) -> list[Passed]:
        """The steps the state KEY is made of, the first first; what was only copied from is not among them."""
        found = []
        while (passed := self._passed.get(key)) is not None:
            found.append(passed)
            key = passed.parent
        return found[::-1]
