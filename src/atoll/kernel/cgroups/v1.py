"""OCI resources in v1 control files, and usage read back from them. `at` maps a controller to the group's directory in its hierarchy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from atoll.errors import SystemFailure
from atoll.kernel.cgroups import files

SELDOM = frozenset(("blockIO", "hugepageLimits", "network", "rdma"))  # sections of OCI resources for the module of that name
UNLIMITED = 1 << 62  # v1 shows "no limit" as the largest multiple of a page


def apply(at: Mapping[str, str], resources: Mapping[str, Any]) -> None:
    """Write what is present. Raises SystemFailure."""
    if "memory" in at and resources.get("memory"):
        _memory(at["memory"], resources["memory"])
    if resources.get("cpu"):
        _cpu(at, resources["cpu"])
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None and "pids" in at:
        files.write(at["pids"], "pids.max", "max" if limit <= 0 else limit)
    if not SELDOM.isdisjoint(resources):
        from atoll.kernel.cgroups import seldom

        seldom.apply_v1(at, resources)


def _memory(directory: str, memory: Mapping[str, Any]) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    swap_file = "memory.memsw.limit_in_bytes"
    # The sum may never be below the memory limit: raise it first, lower it last.
    present = files.read_number(directory, swap_file)
    order = [("memory.limit_in_bytes", limit)] if limit else []
    if swap and present is not None:
        order.insert(0 if swap == -1 or swap > present else len(order), (swap_file, swap))
    for name, value in order:
        files.write(directory, name, value)
    if memory.get("reservation"):
        files.write(directory, "memory.soft_limit_in_bytes", memory["reservation"])
    if memory.get("swappiness") is not None:
        files.write(directory, "memory.swappiness", memory["swappiness"])
    if memory.get("disableOOMKiller"):
        files.write(directory, "memory.oom_control", 1)


def _cpu(at: Mapping[str, str], cpu: Mapping[str, Any]) -> None:
    if "cpu" in at:
        for key, name in (
            ("shares", "cpu.shares"),
            ("period", "cpu.cfs_period_us"),
            ("quota", "cpu.cfs_quota_us"),
            ("burst", "cpu.cfs_burst_us"),
            ("idle", "cpu.idle"),
        ):
            if cpu.get(key):
                files.write(at["cpu"], name, cpu[key])
    if "cpuset" in at:
        for key, name in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
            if cpu.get(key):
                files.write(at["cpuset"], name, cpu[key])


def cpu_stats(at: Mapping[str, str]) -> dict[str, Any]:
    accounting, cpu = at.get("cpuacct", ""), at.get("cpu", "")
    throttling = files.read_table(cpu, "cpu.stat") if cpu else {}
    return {
        "usage_ns": files.read_number(accounting, "cpuacct.usage") or 0,
        "user_ns": files.read_number(accounting, "cpuacct.usage_user") or 0,
        "system_ns": files.read_number(accounting, "cpuacct.usage_sys") or 0,
        "periods": throttling.get("nr_periods", 0),
        "throttled_periods": throttling.get("nr_throttled", 0),
        "throttled_ns": throttling.get("throttled_time", 0),
    }


def memory_stats(directory: str) -> dict[str, Any]:
    detail = files.read_table(directory, "memory.stat")
    limit = files.read_number(directory, "memory.limit_in_bytes")
    return {
        "usage": files.read_number(directory, "memory.usage_in_bytes") or 0,
        "max_usage": files.read_number(directory, "memory.max_usage_in_bytes") or 0,
        "limit": None if limit is None or limit >= UNLIMITED else limit,
        "inactive_file": detail.get("total_inactive_file", 0),
        "failures": files.read_number(directory, "memory.failcnt") or 0,
        "detail": detail,
    }


def io_stats(directory: str) -> dict[str, int]:
    return {
        "read_bytes": _sum(directory, "blkio.throttle.io_service_bytes", "Read"),
        "write_bytes": _sum(directory, "blkio.throttle.io_service_bytes", "Write"),
        "read_operations": _sum(directory, "blkio.throttle.io_serviced", "Read"),
        "write_operations": _sum(directory, "blkio.throttle.io_serviced", "Write"),
    }


def _sum(directory: str, name: str, operation: str) -> int:
    return sum(number for key, number in files.read_table(directory, name).items() if key.endswith(operation))


def restrict_devices(directory: str, rules: Iterable[Mapping[str, Any]]) -> None:
    """Raises SystemFailure."""
    with contextlib.ExitStack() as stack:
        opened: dict[str, int] = {}
        for name, line in device_lines(rules):
            if name not in opened:
                opened[name] = stack.enter_context(files.opened(directory, name))
            try:
                os.write(opened[name], line.encode())
            except OSError as error:
                raise SystemFailure(f"set {line} in {directory}/{name}", error.errno or 0) from error


def device_lines(rules: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """OCI device rules as (file, line) writes for the devices controller, in order."""
    lines = []
    for rule in rules:
        kind = rule.get("type") or "a"
        major, minor = rule.get("major"), rule.get("minor")
        numbers = f"{'*' if major is None or major < 0 else major}:{'*' if minor is None or minor < 0 else minor}"
        name = "devices.allow" if rule.get("allow") else "devices.deny"
        # The kernel takes a bare "a" for "everything"; with more it would be refused.
        everything = kind == "a"
        lines.append((name, "a" if everything else f"{kind} {numbers} {rule.get('access') or 'rwm'}"))
    return lines
