"""How much of the build cache a prune leaves: the three sizes of BuildPrune, as a time before which nothing used stays.

Without sizes all of it goes. `reserved` is always left, `maximum` is what the cache may take, `minimum_free` what the disk shall have free;
what was used last stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.images.views import parse_time_ns
from atoll.units import NS


def unused_since(rows: Iterable[Mapping[str, Any]], *, reserved: int, maximum: int, minimum_free: int, free: int) -> float | None:
    """Seconds since the epoch; None where all goes. `rows` are the cache's entries, `free` what the disk has."""
    newest = sorted(rows, key=lambda row: str(row["LastUsedAt"]), reverse=True)
    total = sum(int(row["Size"]) for row in newest)
    left = total if maximum or minimum_free else 0
    if maximum:
        left = min(left, maximum)
    if minimum_free:
        left = min(left, total - max(0, minimum_free - free))
    left = max(left, reserved)
    if not left:
        return None  # not even what has no size: its moment would spare all of the same second
    oldest_kept = None
    for row in newest:
        left -= int(row["Size"])
        if left < 0:
            break
        oldest_kept = parse_time_ns(row["LastUsedAt"]) / NS
    return oldest_kept
