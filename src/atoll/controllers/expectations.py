"""What a controller has asked for and not yet seen: between a create and its watch event the informer is stale, and counting pods then
would make too many.

`satisfied(key)` is false until every expected creation and deletion was observed, or five minutes have passed (client-go's
ExpectationsTimeout: a lost event must not stop a controller for ever).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

TIMEOUT_S = 300.0


@dataclass(slots=True)
class _Expected:
    since: float
    creations: int = 0
    deletions: set[str] = field(default_factory=set)


class Expectations:
    """Keyed by the owner's key. Deletions are known by the object's own key, so that seeing one twice counts once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expected: dict[str, _Expected] = {}

    def expect(self, key: str, *, creations: int = 0, deletions: Iterable[str] = ()) -> None:
        self._expected[key] = _Expected(self._clock(), creations, set(deletions))

    def creation_observed(self, key: str, count: int = 1) -> None:
        """Also called for creations that failed or were not tried."""
        expected = self._expected.get(key)
        if expected is not None:
            expected.creations -= count

    def deletion_observed(self, key: str, deleted: str) -> None:
        expected = self._expected.get(key)
        if expected is not None:
            expected.deletions.discard(deleted)

    def satisfied(self, key: str) -> bool:
        expected = self._expected.get(key)
        if expected is None or self._clock() - expected.since > TIMEOUT_S:
            return True
        return expected.creations <= 0 and not expected.deletions

    def forget(self, key: str) -> None:
        self._expected.pop(key, None)
