"""Completion indexes of an Indexed job, and their short spelling: "0-3,7"."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable

from atoll.client.objects import Object, annotations_of

_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
INDEX = "batch.kubernetes.io/job-completion-index"  # annotation and label of the pod


def index_of(pod: Object) -> int | None:
    try:
        return int(annotations_of(pod).get(INDEX, ""))
    except ValueError:
        return None


def ranges(text: str | None) -> list[range]:
    """Never spelled out: somebody may have named more than there is memory for. What is no range is passed over."""
    found = []
    for part in (text or "").split(","):
        match = _RANGE.fullmatch(part)
        if match:
            found.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def parse(text: str | None, below: int) -> set[int]:
    """The indexes, as far as a job that has `below` of them can have them."""
    return {index for each in ranges(text) for index in each[: max(0, below - each.start)]}


def within(wanted: Iterable[range], among: Iterable[int]) -> int:
    """How many of `among` the ranges hold, which do not overlap."""
    found = sorted(among)
    return sum(bisect_left(found, each.stop) - bisect_left(found, each.start) for each in wanted)


def spell(indexes: Iterable[int]) -> str:
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(set(indexes)), None]:
        if run and index is not None and index == run[-1] + 1:
            run.append(index)
            continue
        if run:
            separator = "," if len(run) == 2 else "-"
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}{separator}{run[-1]}")
        run = [] if index is None else [index]
    return ",".join(parts)
