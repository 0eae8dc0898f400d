"""What this machine is: the capacity and the names a node tells of."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PODS_MAX = 110  # kubelet's maxPods
HUGE_PAGES = Path("/sys/kernel/mm/hugepages")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
CAP_SYS_RESOURCE = 24


@dataclass(frozen=True)
class Machine:
    """`storage` is the directory whose file system holds pods and images."""

    storage: Path

    @cached_property
    def memory(self) -> int:
        """Bytes: the machine's, or less where our own cgroup is smaller."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @cached_property
    def capacity(self) -> Mapping[str, str]:
        disk = shutil.disk_usage(self.storage).total
        found = {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{self.memory // 1024}Ki",
            "ephemeral-storage": f"{disk // 1024}Ki",
            "pods": str(PODS_MAX),
        }
        for path in sorted(HUGE_PAGES.glob("hugepages-*kB")) if HUGE_PAGES.is_dir() else ():
            size = int(path.name.removeprefix("hugepages-").removesuffix("kB"))
            name = f"hugepages-{size // 1048576}Gi" if size >= 1048576 else f"hugepages-{size // 1024}Mi"
            pages = int((path / "nr_hugepages").read_text())
            found[name] = f"{pages * size}Ki" if pages else "0"
        return found

    @cached_property
    def allocatable(self) -> Mapping[str, str]:
        return dict(self.capacity)

    @cached_property
    def may_lower_oom(self) -> bool:
        """Whether processes may be made less likely to be killed."""
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("CapBnd:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
        return False

    @cached_property
    def architecture(self) -> str:
        return _ARCHITECTURES.get(platform.machine(), platform.machine())

    @cached_property
    def info(self) -> Mapping[str, str]:
        """The part of nodeInfo that the machine tells."""
        return {
            "machineID": _first_line("/etc/machine-id"),
            "systemUUID": _first_line("/sys/class/dmi/id/product_uuid") or _first_line("/etc/machine-id"),
            "bootID": _first_line("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": platform.release(),
            "osImage": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
            "operatingSystem": "linux",
            "architecture": self.architecture,
        }


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
