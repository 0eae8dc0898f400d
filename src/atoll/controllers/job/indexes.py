"""Completion indexes of an Indexed job, and their short spelling: "0-3,7"."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.client.objects import Object, annotations_of

INDEX = "batch.kubernetes.io/job-completion-index"  # annotation and label of the pod


def index_of(pod: Object) -> int | None:
    try:
        return int(annotations_of(pod).get(INDEX, ""))
    except ValueError:
        return None


def parse(text: str | None) -> set[int]:
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


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
