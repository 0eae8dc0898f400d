"""Looks for what an instance has left on the machine: processes, mounts, links, cgroups, nftables tables.

Everything an instance puts outside its home carries its id or its path, so each test's instance is judged alone, whatever else runs
beside it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from atoll.config import Instance
from atoll.errors import NotSupported

PATIENCE_S = 5.0  # the kernel takes links and namespaces away in its own time
STEP_S = 0.05


def left_behind(instance: Instance) -> list[str]:
    """Names of what is still there after PATIENCE_S; empty is clean."""
    end = time.monotonic() + PATIENCE_S
    while True:
        found = [*_processes(instance), *_mounts(instance), *_links(instance), *_cgroups(instance), *_tables(instance)]
        if not found or time.monotonic() > end:
            return found
        time.sleep(STEP_S)


def _processes(instance: Instance) -> list[str]:
    home, needle = os.fsencode(instance.home), b"ATOLL_HOME=" + os.fsencode(instance.home)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes()
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue  # it has gone, or is a zombie
        if (words and home in words.split(b"\0")) or needle in environment.split(b"\0"):
            found.append(f"process {entry}: {words.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return found


def _mounts(instance: Instance) -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    return [f"mount {point}" for point in points if point.startswith(f"{instance.home}/")]


def _links(instance: Instance) -> list[str]:
    return [f"link {name}" for name in os.listdir("/sys/class/net") if instance.id[:6] in name]


def _cgroups(instance: Instance) -> list[str]:
    found = []
    for top in Path("/sys/fs/cgroup").glob("*"):
        if top.is_dir():
            found += [f"cgroup {path}" for path in top.glob(f"atoll-{instance.id}*")]
    return [*found, *(f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"atoll-{instance.id}*"))]


def _tables(instance: Instance) -> list[str]:
    from atoll.kernel.nftables import Nftables

    try:
        with Nftables() as nftables:
            listing = nftables.query("list tables")
    except NotSupported:
        return []
    return [f"nftables table named after {instance.id}"] if instance.id in listing else []
