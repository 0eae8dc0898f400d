"""Named volumes of the local driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.config import Instance

UsedBy = Callable[[str], Sequence[str]]  # volume name to the ids of containers that refer to it


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    created: str
    labels: dict[str, str]
    options: dict[str, str]
    anonymous: bool = False


class Volumes:
    """Synchronous: each call is a few file operations. Raises NotFound, InUse, Conflict, InvalidInput, NotSupported."""

    def __init__(self, instance: Instance, *, used_by: UsedBy = lambda _name: ()) -> None:
        raise NotImplementedError

    def create(
        self, name: str = "", *, driver: str = "local", labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The volume's API object; an existing one is answered as it is. An empty name makes an anonymous volume of 64 hex digits."""
        raise NotImplementedError

    def path(self, name: str) -> Path:
        """Where its data lies, without mounting anything; creates nothing. NotFound."""
        raise NotImplementedError

    def mount(self, name: str) -> Path:
        """Its data directory, with the file system of its options (type, o, device) mounted on it once; what a container binds."""
        raise NotImplementedError

    def unmount(self, name: str) -> None:
        """Undoes `mount` once no container runs with it; idempotent, a no-op for plain volumes."""
        raise NotImplementedError

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
        raise NotImplementedError

    def inspect(self, name: str) -> dict[str, Any]:
        raise NotImplementedError

    def remove(self, name: str, *, force: bool = False) -> None:
        """InUse names the containers. `force` forgives a volume that is not there."""
        raise NotImplementedError

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """{"VolumesDeleted": [...], "SpaceReclaimed": bytes}; anonymous volumes only, unless filter all=true (API 1.42)."""
        raise NotImplementedError
