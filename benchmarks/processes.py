"""Memory and CPU of running processes, from /proc."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def memory(pids: Iterable[int], kind: str) -> float:
    """MB (10^6 bytes) resident ("Rss"), or with shared pages divided among those that share them ("Pss")."""
    kibibytes = (re.search(rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE) for pid in pids)
    return sum(int(found[1]) for found in kibibytes if found) * 1024 / 1e6


def cpu_seconds(pids: Iterable[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 of proc(5)
    return total / TICKS


def cpu_percent(pids: list[int], seconds: float) -> float:
    """Of one core, over the next `seconds`."""
    before = cpu_seconds(pids)
    time.sleep(seconds)
    return 100 * (cpu_seconds(pids) - before) / seconds
