"""The contract of a store: values, changes and the two ways a call is refused.

Keys are paths (`/registry/<group>/<plural>/<namespace>/<name>`), values opaque bytes. A value never contains its own revision: the store
hands the revision out beside it, as etcd does, so that the same bytes can live in either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atoll.errors import Conflict, NotFound


class CompareFailed(Conflict):
    """The key is not at the revision the caller saw. `actual` is where it is (0: no such key), acknowledged or still being written.

    Once `seen` has been announced, the caller can see why.
    """

    def __init__(self, key: str, expected: int, actual: int, seen: int = 0) -> None:
        super().__init__(f"{key} is at revision {actual}, not {expected}")
        self.actual = actual
        self.seen = seen or actual


class Compacted(NotFound):
    """The history asked for is no longer kept. `revision` is the oldest that can still be continued from."""

    def __init__(self, asked: int, revision: int) -> None:
        super().__init__(f"revision {asked} has been compacted; history begins after {revision}")
        self.revision = revision


@dataclass(frozen=True, slots=True)
class Record:
    """A key's value as it stands: `revision` is that of its last write."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One acknowledged write. `value` is None for a delete, `previous` the revision it replaced (0: the key was new).

    `payload` is what the writer passed in, so that a subscriber in the same process need not decode the value again; None on changes
    that came from elsewhere.
    """

    revision: int
    key: str
    value: bytes | None
    previous: int
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Past:
    """A change read back from history, with the value it replaced (None: the key was new)."""

    revision: int
    key: str
    value: bytes | None
    before: bytes | None
    before_revision: int


COMPACT_INTERVAL_S = 300.0  # upstream's --etcd-compaction-interval
Subscriber = Callable[[Sequence[Change]], None]


class Store(Protocol):
    """All methods belong to one event loop."""

    @property
    def revision(self) -> int:
        """The last revision that was announced."""

    @property
    def compacted(self) -> int:
        """History after this revision can be read; nothing at or before it."""

    @property
    def problem(self) -> str:
        """Why nothing can be written, or read consistently; "" when all is well."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have every batch of changes, in order; called on the loop, must not raise or wait."""

    async def write(self, key: str, value: bytes | None, *, expected: int, payload: object = None) -> int:
        """Put (or, with None, delete) `key` if it is at revision `expected` (0: does not exist); answer the new revision, once durable.

        Raises CompareFailed; Unavailable when the disk refuses.
        """

    async def settle(self) -> None:
        """Return when all that has been acknowledged, by whatever server, has been announced here. Raises Unavailable."""

    async def scan(self, prefix: str, *, revision: int | None = None) -> list[Record]:
        """All records under `prefix` in key order, as they stood at `revision`. Raises Compacted."""

    async def history(self, prefix: str, after: int) -> tuple[list[Past], int]:
        """Changes under `prefix` with a revision above `after`, and the revision up to which they are complete. Raises Compacted."""

    async def compact(self, revision: int) -> None:
        """Forget history at and before `revision`; current values stay."""

    async def close(self) -> None:
        """Finish the writes under way and let go of the store."""
