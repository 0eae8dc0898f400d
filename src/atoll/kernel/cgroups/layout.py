"""Which cgroup hierarchies are mounted, and which controller lives in which."""

from __future__ import annotations

import os
from typing import NamedTuple

CONTROLLERS = frozenset(
    (
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
        "misc",
    )
)


class Layout(NamedTuple):
    """`v1` maps a controller to the mount point of its hierarchy; `named` are v1 hierarchies without one ("name=systemd").

    `unified` is the mount point of the v2 hierarchy and `unified_controllers` what it carries; "" and empty where there is none.
    """

    v1: dict[str, str]
    named: tuple[str, ...]
    unified: str
    unified_controllers: frozenset[str]

    @classmethod
    def discover(cls, mountinfo: str = "/proc/self/mountinfo") -> Layout:
        v1: dict[str, str] = {}
        named: dict[str, str] = {}
        unified = ""
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                before, _, after = line.partition(" - ")
                kind, _, options = after.split(" ", 2)
                point = before.split(" ")[4].replace("\\040", " ")
                if kind == "cgroup2" and not unified:
                    unified = point
                elif kind == "cgroup":
                    words = options.rstrip("\n").split(",")
                    carried = CONTROLLERS.intersection(words)
                    for controller in carried:
                        v1.setdefault(controller, point)
                    if not carried:
                        named.setdefault(next((word for word in words if word.startswith("name=")), point), point)
        return cls(v1, tuple(dict.fromkeys(named.values())), unified, _unified_controllers(unified))

    @property
    def points(self) -> list[str]:
        """Every v1 mount point once."""
        return [*dict.fromkeys(self.v1.values()), *self.named]

    def has(self, controller: str) -> bool:
        return controller in self.v1 or controller in self.unified_controllers

    @property
    def mode(self) -> str:
        if not self.v1:
            return "v2" if self.unified else "none"
        return "hybrid" if self.unified else "v1"


def _unified_controllers(point: str) -> frozenset[str]:
    if not point:
        return frozenset()
    try:
        with open(os.path.join(point, "cgroup.controllers"), encoding="ascii") as listed:
            return frozenset(listed.read().split())
    except FileNotFoundError:
        return frozenset()
