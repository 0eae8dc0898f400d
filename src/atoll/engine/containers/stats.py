"""`docker stats`: the cgroup's counters and the namespace's interfaces, in the shape Docker gives on cgroup v2.

One sample is two readings: `precpu_stats` is the one before, so that a client can tell the share of CPU time. The first of a stream has an
empty "before", unless one sample is asked for, which waits a second for the second reading (and does not with `one-shot`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from atoll import units
from atoll.engine.containers.inspect import NEVER
from atoll.engine.containers.record import Container
from atoll.engine.services import Services
from atoll.errors import AtollError

INTERVAL_S = 1.0
_INTERFACE_FIELDS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")
_COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11)  # of a line of /proc/net/dev, proc_net(5)


class Stats:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def sample(self, container: Container, *, one_shot: bool) -> dict[str, Any]:
        """One sample. Two readings a second apart, unless `one_shot`."""
        first = await self._read(container)
        if one_shot or not container.is_up:
            return first
        await asyncio.sleep(INTERVAL_S)
        return _after(await self._read(container), first)

    async def stream(self, container: Container) -> AsyncIterator[dict[str, Any]]:
        """A sample a second, until the container is removed."""
        before: dict[str, Any] | None = None
        while not container.removed:
            now = await self._read(container)
            yield _after(now, before) if before else now
            before = now
            await asyncio.sleep(INTERVAL_S)

    async def _read(self, container: Container) -> dict[str, Any]:
        if not container.is_up:
            return _empty(container)
        try:
            raw = await self._services.runtime.stats(container.id)
        except AtollError:
            return _empty(container)  # it ended this very moment
        return {**_empty(container), **shape(raw), "read": units.timestamp(), "networks": interfaces(container.record.pid)}


def _empty(container: Container) -> dict[str, Any]:
    cpu = {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}, "throttling_data": _throttling({})}
    return {
        "name": f"/{container.name}",
        "id": container.id,
        "read": NEVER,
        "preread": NEVER,
        "num_procs": 0,
        "pids_stats": {},
        "blkio_stats": _block({}),
        "storage_stats": {},
        "cpu_stats": cpu,
        "precpu_stats": cpu,
        "memory_stats": {},
    }


def _after(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {**now, "preread": before["read"], "precpu_stats": before["cpu_stats"]}


def shape(raw: dict[str, Any]) -> dict[str, Any]:
    """`kernel.cgroups` counters in Docker's words."""
    cpu, memory, pids = raw.get("cpu", {}), raw.get("memory", {}), raw.get("pids", {})
    host_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = memory.get("limit")
    return {
        "pids_stats": {"current": pids.get("current", 0), **({"limit": pids["limit"]} if pids.get("limit") else {})},
        "blkio_stats": _block(raw.get("io", {})),
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": cpu.get("usage_ns", 0),
                "usage_in_kernelmode": cpu.get("system_ns", 0),
                "usage_in_usermode": cpu.get("user_ns", 0),
            },
            "system_cpu_usage": host_cpu_ns(),
            "online_cpus": os.cpu_count() or 1,
            "throttling_data": _throttling(cpu),
        },
        "memory_stats": {
            "usage": memory.get("usage", 0),
            "max_usage": memory.get("max_usage", 0),
            "failcnt": memory.get("failures", 0),
            "limit": min(limit, host_memory) if limit else host_memory,
            "stats": {**memory.get("detail", {}), "inactive_file": memory.get("inactive_file", 0)},
        },
    }


def _throttling(cpu: dict[str, Any]) -> dict[str, int]:
    return {
        "periods": cpu.get("periods", 0),
        "throttled_periods": cpu.get("throttled_periods", 0),
        "throttled_time": cpu.get("throttled_ns", 0),
    }


def _block(io: dict[str, int]) -> dict[str, Any]:
    names = ("io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive")
    others = dict.fromkeys((*names, "io_time_recursive", "sectors_recursive"))
    if not io:
        return {"io_service_bytes_recursive": None, **others}
    totals = [{"major": 0, "minor": 0, "op": op, "value": io[f"{op}_bytes"]} for op in ("read", "write")]
    return {"io_service_bytes_recursive": totals, **others}


def host_cpu_ns() -> int:
    """All CPU time of the host since boot, proc_stat(5)."""
    with open("/proc/stat", "rb") as file:
        fields = file.readline().split()[1:8]
    return sum(map(int, fields)) * (units.NS // os.sysconf("SC_CLK_TCK"))


def interfaces(pid: int) -> dict[str, dict[str, int]]:
    """Counters of every interface but lo in the process's network namespace."""
    found = {}
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
            lines = file.readlines()[2:]
    except OSError:
        return {}
    for line in lines:
        name, _, numbers = line.partition(":")
        values = numbers.split()
        if name.strip() != "lo":
            found[name.strip()] = {field: int(values[column]) for field, column in zip(_INTERFACE_FIELDS, _COLUMNS, strict=True)}
    return found
