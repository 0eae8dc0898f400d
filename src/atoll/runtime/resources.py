"""Docker's limits (HostConfig) as an OCI `linux.resources`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from atoll.errors import InvalidInput

BLOCK_WEIGHT_MIN, BLOCK_WEIGHT_MAX = 10, 1000
# Docker's field to OCI's, and the name of its number.
BLOCK_DEVICES = {
    "BlkioWeightDevice": ("weightDevice", "weight"),
    "BlkioDeviceReadBps": ("throttleReadBpsDevice", "rate"),
    "BlkioDeviceWriteBps": ("throttleWriteBpsDevice", "rate"),
    "BlkioDeviceReadIOps": ("throttleReadIOPSDevice", "rate"),
    "BlkioDeviceWriteIOps": ("throttleWriteIOPSDevice", "rate"),
}
CPU_PERIOD_US = 100_000  # the kernel's default; NanoCpus are a share of it
MEMORY_MIN = 6 * 1024 * 1024  # bytes; Docker's own floor: less does not carry the init


def from_host_config(host_config: Mapping[str, Any]) -> dict[str, Any]:
    """Memory, CPU, pids and block I/O limits that were set; a zero means "not limited". Raises InvalidInput in Docker's words."""
    sections = {"memory": _memory(host_config), "cpu": _cpu(host_config)}
    resources: dict[str, Any] = {name: section for name, section in sections.items() if section}
    pids = host_config.get("PidsLimit")
    if pids:
        resources["pids"] = {"limit": pids}
    block = _block(host_config)
    if block:
        resources["blockIO"] = block
    return resources


def _block(host_config: Mapping[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = {}
    weight = host_config.get("BlkioWeight") or 0
    if weight:
        if not BLOCK_WEIGHT_MIN <= weight <= BLOCK_WEIGHT_MAX:
            raise InvalidInput(f"Range of blkio weight is from {BLOCK_WEIGHT_MIN} to {BLOCK_WEIGHT_MAX}")
        block["weight"] = weight
    for name, (field, key) in BLOCK_DEVICES.items():
        entries = host_config.get(name) or ()
        if entries:
            block[field] = [_block_device(name, entry, key) for entry in entries]
    return block


def _block_device(name: str, entry: Any, key: str) -> dict[str, int]:
    path, value = entry.get("Path"), entry.get(key.capitalize())
    if not isinstance(path, str) or not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"invalid {name}: {entry} needs a Path and a {key.capitalize()} of zero or more")
    if key == "weight" and not BLOCK_WEIGHT_MIN <= value <= BLOCK_WEIGHT_MAX:
        raise InvalidInput(f"Range of blkio weight is from {BLOCK_WEIGHT_MIN} to {BLOCK_WEIGHT_MAX}")
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"invalid {name}: stat {path}: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidInput(f"invalid {name}: {path} is not a block device")
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev), key: value}


def _memory(host_config: Mapping[str, Any]) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    limit = host_config.get("Memory") or 0
    swap = host_config.get("MemorySwap") or 0
    if limit:
        if 0 < limit < MEMORY_MIN:
            raise InvalidInput("Minimum memory limit allowed is 6MB")
        memory["limit"] = limit
    if swap:
        if not limit and swap > 0:
            raise InvalidInput("You should always set the Memory limit when using Memoryswap limit, see usage")
        if 0 < swap < limit:
            raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
        memory["swap"] = swap
    elif limit:
        memory["swap"] = 2 * limit  # Docker's default: as much swap again
    if host_config.get("MemoryReservation"):
        memory["reservation"] = host_config["MemoryReservation"]
    if host_config.get("OomKillDisable"):
        memory["disableOOMKiller"] = True
    swappiness = host_config.get("MemorySwappiness")
    if swappiness is not None and swappiness != -1:
        memory["swappiness"] = swappiness
    return memory


def _cpu(host_config: Mapping[str, Any]) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    nano = host_config.get("NanoCpus") or 0
    if nano < 0:
        raise InvalidInput("Range of CPUs is from 0.01 upwards, as a positive number")
    if nano:
        if host_config.get("CpuQuota") or host_config.get("CpuPeriod"):
            raise InvalidInput("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set")
        cpu["period"] = CPU_PERIOD_US
        cpu["quota"] = nano * CPU_PERIOD_US // 1_000_000_000
    for key, name in (
        ("CpuShares", "shares"),
        ("CpuPeriod", "period"),
        ("CpuQuota", "quota"),
        ("CpusetCpus", "cpus"),
        ("CpusetMems", "mems"),
    ):
        if host_config.get(key):
            cpu[name] = host_config[key]
    return cpu
