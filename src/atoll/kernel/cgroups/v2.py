"""OCI resources in v2 control files, and usage read back from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.kernel.cgroups import files
from atoll.kernel.cgroups.v1 import SELDOM


def apply(directory: str, controllers: Iterable[str], resources: Mapping[str, Any]) -> None:
    """Write what is present, for the `controllers` that live here. Raises SystemFailure."""
    here = frozenset(controllers)
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    if "memory" in here and memory:
        _memory(directory, memory)
    if "cpu" in here:
        if cpu.get("shares"):
            files.write(directory, "cpu.weight", weight_of_shares(cpu["shares"]))
        if cpu.get("quota") or cpu.get("period"):
            quota = cpu.get("quota") or -1
            files.write(directory, "cpu.max", f"{'max' if quota < 0 else quota} {cpu.get('period') or 100_000}")
        for key, name in (("burst", "cpu.max.burst"), ("idle", "cpu.idle")):
            if cpu.get(key):
                files.write(directory, name, cpu[key])
    if "cpuset" in here:
        for key in ("cpus", "mems"):
            if cpu.get(key):
                files.write(directory, f"cpuset.{key}", cpu[key])
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None and "pids" in here:
        files.write(directory, "pids.max", "max" if limit <= 0 else limit)
    if not SELDOM.isdisjoint(resources):
        from atoll.kernel.cgroups import seldom

        seldom.apply_v2(directory, here, resources)
    for name, value in (resources.get("unified") or {}).items():
        files.write(directory, name.replace("/", ""), value)


def weight_of_shares(shares: int) -> int:
    """v1's 2..262144 to v2's 1..10000, as runc and systemd agreed on."""
    return max(1, min(10_000, 1 + (shares - 2) * 9_999 // 262_142))


def _memory(directory: str, memory: Mapping[str, Any]) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit:
        files.write(directory, "memory.max", "max" if limit < 0 else limit)
    if swap and files.exists(directory, "memory.swap.max"):
        # OCI's number is the sum of both, v2 wants swap alone.
        files.write(directory, "memory.swap.max", "max" if swap < 0 else max(0, swap - (limit or 0)))
    if memory.get("reservation"):
        files.write(directory, "memory.low", memory["reservation"])


def cpu_stats(directory: str) -> dict[str, Any]:
    table = files.read_table(directory, "cpu.stat")
    return {
        "usage_ns": table.get("usage_usec", 0) * 1000,
        "user_ns": table.get("user_usec", 0) * 1000,
        "system_ns": table.get("system_usec", 0) * 1000,
        "periods": table.get("nr_periods", 0),
        "throttled_periods": table.get("nr_throttled", 0),
        "throttled_ns": table.get("throttled_usec", 0) * 1000,
    }


def memory_stats(directory: str) -> dict[str, Any]:
    detail = files.read_table(directory, "memory.stat")
    return {
        "usage": files.read_number(directory, "memory.current") or 0,
        "max_usage": files.read_number(directory, "memory.peak") or 0,
        "limit": files.read_number(directory, "memory.max"),
        "inactive_file": detail.get("inactive_file", 0),
        "failures": files.read_table(directory, "memory.events").get("max", 0),
        "detail": detail,
    }


def io_stats(directory: str) -> dict[str, int]:
    totals = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    for line in files.read(directory, "io.stat").splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if key in totals:
                totals[key] += int(value)
    return {
        "read_bytes": totals["rbytes"],
        "write_bytes": totals["wbytes"],
        "read_operations": totals["rios"],
        "write_operations": totals["wios"],
    }
