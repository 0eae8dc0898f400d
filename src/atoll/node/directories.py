"""Where a pod's own files lie: <cluster>/pods/<uid>/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atoll.config import Instance


@dataclass(frozen=True, slots=True)
class PodDirectory:
    root: Path

    @classmethod
    def of(cls, instance: Instance, uid: str) -> PodDirectory:
        return cls(pods_directory(instance) / uid)

    @property
    def sandbox(self) -> Path:
        return self.root / "sandbox.json"

    @property
    def etc(self) -> Path:
        """hosts, resolv.conf, hostname."""
        return self.root / "etc"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def subpaths(self) -> Path:
        return self.root / "volume-subpaths"

    def termination_log(self, container: str, attempt: int) -> Path:
        return self.root / "containers" / container / f"termination-log.{attempt}"


def pods_directory(instance: Instance) -> Path:
    return instance.cluster / "pods"
