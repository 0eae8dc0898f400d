"""Named volumes of the local driver, in the shapes and words of the Docker Engine API.

A volume is a directory volumes/<name> that holds `_data`, which containers see, and `volume.json`, which says what it is. Making one is
a rename of a
finished directory, removing one a rename away: a crash leaves whole volumes, and debris that the next start sweeps.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll import units
from atoll.config import Instance
from atoll.errors import AtollError, InUse, InvalidInput, NotFound, SystemFailure
from atoll.volumes.mounting import check_options, is_mounted, mount_volume, unmount_volume
from atoll.volumes.removal import remove_tree

logger = logging.getLogger(__name__)

UsedBy = Callable[[str], Sequence[str]]  # volume name to the ids of containers that refer to it
Views = list[dict[str, Any]]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_MAX = 255  # bytes of a file name
_ANONYMOUS = "com.docker.volume.anonymous"  # Docker's label, by which prune knows them
_DEBRIS = "."  # no volume's name begins with a dot
_LIST_FILTERS = ("dangling", "driver", "label", "name")
_PRUNE_FILTERS = ("all", "label", "label!", "until")


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    created: str  # whole seconds, RFC 3339
    labels: dict[str, str]
    options: dict[str, str]


class Volumes:
    """Synchronous: a call is a few file operations, but for removing and measuring, which belong in a thread.

    Raises NotFound, InUse, Conflict, InvalidInput, SystemFailure.
    """

    def __init__(self, instance: Instance, *, used_by: UsedBy = lambda _name: ()) -> None:
        self._root = instance.volumes
        self._used_by = used_by
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)  # users inside containers must get through to their data
        for debris in self._root.glob(f"{_DEBRIS}*"):
            remove_tree(debris)

    def create(
        self, name: str = "", *, driver: str = "local", labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The volume's API object; an existing one is answered as it is. An empty name makes an anonymous volume of 64 hex digits."""
        if (driver or "local") != "local":
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found: use the local driver')
        labels = _strings(labels, "Labels")
        options = check_options(_strings(options, "DriverOpts"))
        if not name:
            name = secrets.token_hex(32)
            labels = {**labels, _ANONYMOUS: ""}
        _check_name(name)
        if (self._root / name).is_dir():
            return self.inspect(name)
        self._write(Volume(name, units.timestamp_seconds(), labels, options))
        return self.inspect(name)

    def path(self, name: str) -> Path:
        """Where its data lies; nothing is made or mounted."""
        return self._root / self._load(name).name / "_data"

    def mount(self, name: str) -> Path:
        """Its data directory, with the file system that its options name (type, o, device) mounted there, once; what a container binds."""
        volume = self._load(name)
        data = self._root / name / "_data"
        if volume.options and not is_mounted(data):
            mount_volume(volume.options, data)
        return data

    def unmount(self, name: str) -> None:
        """Undoes `mount`, once no container runs with it; nothing for a plain volume."""
        data = self.path(name)
        if is_mounted(data):
            unmount_volume(data)

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Views:
        """GET /volumes, its `Volumes`."""
        filters = filters or {}
        _check_filters(filters, _LIST_FILTERS)
        wants_dangling = [_truth(value, "dangling") for value in filters.get("dangling", ())]
        return [self._view(volume) for volume in self._all() if self._matches(volume, filters, wants_dangling)]

    def inspect(self, name: str) -> dict[str, Any]:
        """GET /volumes/{name}."""
        return self._view(self._load(name))

    def remove(self, name: str, *, force: bool = False) -> None:
        """InUse names the containers. `force` forgives a volume that is not there."""
        try:
            volume = self._load(name)
        except NotFound:
            if force:
                return
            raise
        if users := self._used_by(volume.name):
            raise InUse(f"remove {name}: volume is in use - [{', '.join(users)}]")
        data = self._root / name / "_data"
        if is_mounted(data):
            unmount_volume(data)
        away = self._root / f"{_DEBRIS}removed-{secrets.token_hex(8)}"
        os.rename(self._root / name, away)
        remove_tree(away)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """POST /volumes/prune: {"VolumesDeleted", "SpaceReclaimed"}. Anonymous volumes only, unless filter all=true (API 1.42)."""
        filters = filters or {}
        _check_filters(filters, _PRUNE_FILTERS)
        named_too = any(_truth(value, "all") for value in filters.get("all", ()))
        limits = [_until(value) for value in filters.get("until", ())]
        deleted, reclaimed = [], 0
        for volume in self._all():
            if (
                (named_too or _ANONYMOUS in volume.labels)
                and all(_has_label(volume, wanted) for wanted in filters.get("label", ()))
                and not any(_has_label(volume, unwanted) for unwanted in filters.get("label!", ()))
                and all(volume.created < limit for limit in limits)
                and not self._used_by(volume.name)
            ):
                size = self.size(volume.name)
                try:
                    self.remove(volume.name)
                except (AtollError, OSError) as error:
                    logger.warning("cannot prune volume %s: %s", volume.name, error)
                    continue
                deleted.append(volume.name)
                reclaimed += size
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}

    def size(self, name: str) -> int:
        """Bytes on disk, for UsageData of system df; a file with several links counts once."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for directory, _directories, files in os.walk(self.path(name)):
            for file in files:
                try:
                    status = os.lstat(os.path.join(directory, file))
                except OSError:  # gone meanwhile
                    continue
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512  # st_blocks counts 512 bytes, stat(2)
        return total

    def _matches(self, volume: Volume, filters: Mapping[str, Sequence[str]], wants_dangling: Sequence[bool]) -> bool:
        return (
            _any(filters.get("driver"), "local".__eq__)
            and _any(filters.get("name"), lambda value: value in volume.name)
            and all(_has_label(volume, wanted) for wanted in filters.get("label", ()))
            and all(wanted != bool(self._used_by(volume.name)) for wanted in wants_dangling)
        )

    def _all(self) -> Sequence[Volume]:
        names = sorted(name for name in os.listdir(self._root) if not name.startswith(_DEBRIS))
        found = []
        for name in names:
            try:
                found.append(self._load(name))
            except (NotFound, AtollError) as error:
                logger.warning("%s", error)
        return found

    def _load(self, name: str) -> Volume:
        try:
            if not _NAME.fullmatch(name):
                raise FileNotFoundError
            return Volume(**orjson.loads((self._root / name / "volume.json").read_bytes()))
        except (FileNotFoundError, OSError) as error:
            raise NotFound(f"get {name}: no such volume") from error
        except (ValueError, TypeError) as error:
            raise AtollError(f"volume {name} is damaged: {self._root / name / 'volume.json'}: {error}") from error

    def _write(self, volume: Volume) -> None:
        made = self._root / f"{_DEBRIS}new-{secrets.token_hex(8)}"
        try:
            made.mkdir(mode=0o711)
            (made / "_data").mkdir()
            (made / "_data").chmod(0o755)
            with open(made / "volume.json", "wb") as file:
                file.write(orjson.dumps(asdict(volume)))
                file.flush()
                os.fsync(file.fileno())
            os.rename(made, self._root / volume.name)
        except OSError as error:
            raise SystemFailure(f"create volume {volume.name}", error.errno or 0) from error

    def _view(self, volume: Volume) -> dict[str, Any]:
        return {
            "CreatedAt": volume.created,
            "Driver": "local",
            "Labels": volume.labels,
            "Mountpoint": str(self._root / volume.name / "_data"),
            "Name": volume.name,
            "Options": volume.options or None,
            "Scope": "local",
        }


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise InvalidInput("invalid volume name: it must be a string")
    if len(name) < 2:
        raise InvalidInput(f'create {name}: volume name is too short, names should be at least two alphanumeric characters: "{name}"')
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
        raise InvalidInput(
            f'create {name[:80]}: "{name[:80]}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )


def _strings(value: Mapping[str, str] | None, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidInput(f"{what} must be an object whose values are strings")
    return dict(value)


def _has_label(volume: Volume, wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in volume.labels and (not separator or volume.labels[key] == value)


def _any(values: Sequence[str] | None, test: Any) -> bool:
    return not values or any(test(value) for value in values)


def _check_filters(filters: Mapping[str, Sequence[str]], known: Sequence[str]) -> None:
    for name in filters:
        if name not in known:
            raise InvalidInput(f"invalid filter '{name}'")


def _truth(value: str, name: str) -> bool:
    if value.lower() in ("1", "true", "t"):
        return True
    if value.lower() in ("0", "false", "f"):
        return False
    raise InvalidInput(f"invalid value for filter '{name}': {value!r}")


def _until(value: str) -> str:
    """A duration before now or a Unix time, in the form of Volume.created, which sorts as text; a timestamp as it is."""
    if value.isdigit():
        return units.timestamp_seconds(float(value))
    if "T" in value:
        return value
    return units.timestamp_seconds(time.time() - units.parse_duration(value) / units.NS)
