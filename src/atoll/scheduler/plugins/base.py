"""What plugins answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

SCORE_MAX = 100


class Rejection(NamedTuple):
    """Why a node will not do. `resolvable` says that removing pods from it could help."""

    reasons: tuple[str, ...]
    resolvable: bool = False


class Unschedulable(Exception):
    """No node will do, whichever it is: raised by `prepare`."""


Filter = Callable[[NodeInfo], Rejection | None]
Prepare = Callable[[PodInfo, Snapshot], Filter | None]
Score = Callable[[PodInfo, Sequence[NodeInfo], Snapshot], list[float]]


def normalized(values: Sequence[float], *, reverse: bool = False) -> list[float]:
    """Scaled so that the largest is 100; with `reverse` less is better. All zero stays all alike."""
    top = max(values, default=0)
    if not top:
        return [SCORE_MAX if reverse else 0.0] * len(values)
    scaled = [value * SCORE_MAX / top for value in values]
    return [SCORE_MAX - value for value in scaled] if reverse else scaled
