"""What is mounted into a container: Binds, Mounts, Tmpfs, image volumes and --volumes-from become one list of mount points.

Reading is pure (`plan`); making the volumes and host directories they need is `realise`, once, at create. The rules are Docker's: a bind
of -v makes its missing host directory, one of --mount does not; an image's volume gives way to whatever the user puts at its place.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from atoll.engine.containers.config import Table, read
from atoll.errors import InvalidInput, NotFound
from atoll.kernel.openat2 import O_PATH, open_in_root
from atoll.volumes import Volumes

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_IGNORED_MODES = frozenset({"z", "Z", "consistent", "cached", "delegated"})  # SELinux labels and other systems' caching
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
# What mount(8) takes for a tmpfs, and how its values look (tmpfs(5)).
_TMPFS_FLAGS = frozenset(
    (
        *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "mand", "nomand", "defaults"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
        *("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"),
    )
)
_TMPFS_VALUES = {
    "size": re.compile(r"[0-9]+[kKmMgGtT%]?", re.ASCII),
    "nr_blocks": re.compile(r"[0-9]+[kKmMgGtT]?", re.ASCII),
    "nr_inodes": re.compile(r"[0-9]+[kKmMgGtT]?", re.ASCII),
    "mode": re.compile(r"[0-7]{1,5}", re.ASCII),
    "uid": re.compile(r"[0-9]{1,10}", re.ASCII),
    "gid": re.compile(r"[0-9]{1,10}", re.ASCII),
    "mpol": re.compile(r"[A-Za-z0-9=:-]+", re.ASCII),
}
_ROOT = "invalid specification: destination can't be '/'"
_TMPFS_OPTION = re.compile(r"[a-z_]+(?:=[A-Za-z0-9.%_:=-]+)?", re.ASCII)

_BIND: Table = {
    "Propagation": ("text", ""),
    "NonRecursive": ("truth", False),
    "CreateMountpoint": ("truth", False),
    "ReadOnlyNonRecursive": ("truth", False),
    "ReadOnlyForceRecursive": ("truth", False),
}
_VOLUME: Table = {"NoCopy": ("truth", False), "Labels": ("map", {}), "DriverConfig": ("object", {}), "Subpath": ("text", "")}
_DRIVER: Table = {"Name": ("text", ""), "Options": ("map", {})}
_IMAGE: Table = {"Subpath": ("text", "")}
_TMPFS: Table = {"SizeBytes": ("int", 0), "Mode": ("int", 0), "Options": ("any", [])}


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount. `source` is a host path (empty for tmpfs, a reference for image); `name` and `driver` are a volume's."""

    type: str  # bind, volume, tmpfs, image
    destination: str  # absolute, but for an image's volume that was written without the slash: see `place`
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    options: tuple[str, ...] = ()  # of a tmpfs
    subpath: str = ""
    recursive: bool = True
    writable_below: bool = False  # read-only itself, though not what is mounted below it
    no_copy: bool = False
    make_source: bool = False
    anonymous: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    driver_options: tuple[tuple[str, str], ...] = ()
    image: str = ""  # its id

    @property
    def place(self) -> str:
        """Where in the container it is mounted."""
        return _clean("/" + self.destination)

    def wire(self) -> dict[str, Any]:
        """The MountPoint of inspect and list."""
        point: dict[str, Any] = {"Type": self.type}
        if self.name:
            point["Name"] = self.name
        point |= {"Source": self.source, "Destination": self.destination}
        if self.driver:
            point["Driver"] = self.driver
        return point | {"Mode": self.mode, "RW": self.rw, "Propagation": self.propagation}

    def row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MountPoint:
        pairs = {name: tuple((key, value) for key, value in row[name]) for name in ("labels", "driver_options")}
        return cls(**{**row, "options": tuple(row["options"]), **pairs})


def plan(config: Mapping[str, Any], host: Mapping[str, Any], volumes_from: Callable[[str], Iterable[MountPoint]]) -> list[MountPoint]:
    """The mount points a container asks for, by destination. `volumes_from(name)` gives another container's. Raises InvalidInput."""
    points: dict[str, MountPoint] = {}
    for text in host["VolumesFrom"] or ():
        name, _, mode = text.partition(":")
        if mode not in {"", "ro", "rw", "z", "Z"}:
            raise InvalidInput(f"invalid mode: {mode}")
        for point in volumes_from(name):
            points[point.place] = replace(point, rw=point.rw and mode != "ro", no_copy=True, anonymous=False)
    own: dict[str, MountPoint] = {}
    for text in host["Binds"] or ():
        _add(own, parse_bind(text, host["VolumeDriver"]))
    for body in host["Mounts"] or ():
        _add(own, parse_mount(body))
    for target, options in (host["Tmpfs"] or {}).items():
        _add(own, MountPoint("tmpfs", _destination(target), options=_tmpfs_options(options), mode=options))
    points |= own
    for target in config["Volumes"] or ():
        point = MountPoint("volume", _clean(target), driver=host["VolumeDriver"] or "local")
        if point.place == "/":
            raise InvalidInput(f"{_ROOT}: the volume '{target}' of the image or of -v")
        points.setdefault(point.place, point)
    return list(points.values())


def _add(points: dict[str, MountPoint], point: MountPoint) -> None:
    if point.destination in points:
        raise InvalidInput(f"Duplicate mount point: {point.destination}")
    points[point.destination] = point


def parse_bind(text: str, driver: str = "") -> MountPoint:
    """Reads "source:destination[:options]", where the source is a host path or a volume's name. Raises InvalidInput."""
    parts = text.split(":")
    if len(parts) == 1:
        parts = ["", parts[0]]
    if len(parts) > 3 or not parts[1]:
        raise InvalidInput(f"invalid volume specification: '{text}'")
    source, target, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    destination = _destination(target, f"invalid volume specification: '{text}': {_config_of('bind' if source[:1] == '/' else 'volume')}")
    rw, propagation, no_copy = _modes(mode, text)
    if source.startswith("/"):
        return MountPoint(
            "bind", destination, os.path.normpath(source), mode=mode, rw=rw, propagation=propagation or "rprivate", make_source=True
        )
    if source and not _VOLUME_NAME.fullmatch(source):
        raise InvalidInput(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
            "allowed. If you intended to pass a host directory, use absolute path"
        )
    if propagation:
        raise InvalidInput(f"invalid volume specification: '{text}': a volume has no propagation mode")
    return MountPoint("volume", destination, name=source, driver=driver or "local", mode=mode or "z", rw=rw, no_copy=no_copy)


def _modes(mode: str, text: str) -> tuple[bool, str, bool]:
    rw, propagation, no_copy = True, "", False
    for word in filter(None, mode.split(",")):
        if word in {"ro", "readonly"}:
            rw = False
        elif word in PROPAGATIONS:
            propagation = word
        elif word == "nocopy":
            no_copy = True
        elif word != "rw" and word not in _IGNORED_MODES:
            raise InvalidInput(f"invalid mode: {mode}" if mode else f"invalid volume specification: '{text}'")
    return rw, propagation, no_copy


def _destination(target: str, where: str = "") -> str:
    """Raises InvalidInput that begins with `where`."""
    if not target.startswith("/"):
        raise InvalidInput(f"{where}invalid mount path: '{target}' mount path must be absolute")
    clean = _clean(target)
    if clean == "/":
        raise InvalidInput(f"{where}{_ROOT}")
    return clean


def _clean(path: str) -> str:
    """Without doubled slashes and dots, as far as names alone tell; posixpath leaves two slashes at the beginning."""
    clean = posixpath.normpath(path)
    return clean[1:] if clean.startswith("//") else clean


def _config_of(kind: str) -> str:
    return f'invalid mount config for type "{kind}": '


def _tmpfs_options(text: str) -> tuple[str, ...]:
    options = tuple(filter(None, text.split(",")))
    for option in options:
        name, equals, value = option.partition("=")
        if not _TMPFS_OPTION.fullmatch(option) or (name not in _TMPFS_VALUES if equals else name not in _TMPFS_FLAGS):
            raise InvalidInput(f'invalid tmpfs option "{option}"')
        if equals and not _TMPFS_VALUES[name].fullmatch(value):
            raise InvalidInput(f'invalid tmpfs option "{option}": {name} cannot be {value}')
    return options


def parse_mount(body: Mapping[str, Any]) -> MountPoint:
    """One entry of HostConfig.Mounts. Raises InvalidInput with Docker's words."""
    kind, target = body.get("Type") or "", body.get("Target") or ""
    source = body.get("Source") or ""
    options = {
        name: read(body.get(name) or {}, table, f"HostConfig.Mounts.{name}.")
        for name, table in (("BindOptions", _BIND), ("VolumeOptions", _VOLUME), ("TmpfsOptions", _TMPFS), ("ImageOptions", _IMAGE))
    }
    if not all(isinstance(value, str) for value in (kind, target, source)):
        raise InvalidInput("invalid mount config: a field has the wrong type")
    if not target:
        raise InvalidInput(f"{_config_of(kind)}field Target must not be empty")
    destination, rw = _destination(target, _config_of(kind)), not body.get("ReadOnly")
    if kind == "bind":
        _check_recursive(rw, options["BindOptions"])
        return _bind_mount(destination, source, rw, options["BindOptions"])
    if kind == "volume":
        return _volume_mount(destination, source, rw, options["VolumeOptions"])
    if kind == "tmpfs":
        return _tmpfs_mount(destination, source, rw, options["TmpfsOptions"])
    if kind == "image":
        return _image_mount(destination, source, options["ImageOptions"])
    raise InvalidInput(f"mount type unknown: {kind}" if kind else "mount type unknown: the field Type is empty")


def _bind_mount(destination: str, source: str, rw: bool, options: Mapping[str, Any]) -> MountPoint:
    if not source.startswith("/"):
        raise InvalidInput(f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute")
    propagation = options["Propagation"] or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidInput(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    make_source = options["CreateMountpoint"]
    if not make_source and not os.path.lexists(source):
        raise InvalidInput(f'invalid mount config for type "bind": bind source path does not exist: {source}')
    recursive = not options["NonRecursive"]
    return MountPoint(
        "bind",
        destination,
        os.path.normpath(source),
        rw=rw,
        propagation=propagation,
        recursive=recursive,
        writable_below=options["ReadOnlyNonRecursive"],
        make_source=make_source,
    )


def _check_recursive(rw: bool, options: Mapping[str, Any]) -> None:
    forced, only_itself = options["ReadOnlyForceRecursive"], options["ReadOnlyNonRecursive"]
    if rw and (forced or only_itself):
        name = "ReadOnlyForceRecursive" if forced else "ReadOnlyNonRecursive"
        raise InvalidInput(f'invalid mount config for type "bind": {name} needs ReadOnly to be true')
    if forced and only_itself:
        raise InvalidInput('invalid mount config for type "bind": ReadOnlyForceRecursive conflicts with ReadOnlyNonRecursive')
    if forced and options["NonRecursive"]:
        raise InvalidInput('invalid mount config for type "bind": ReadOnlyForceRecursive conflicts with NonRecursive')
    if forced and options["Propagation"] not in {"", "rprivate"}:
        raise InvalidInput('invalid mount config for type "bind": ReadOnlyForceRecursive needs the propagation rprivate')


def _volume_mount(destination: str, source: str, rw: bool, options: Mapping[str, Any]) -> MountPoint:
    if source and not _VOLUME_NAME.fullmatch(source):
        raise InvalidInput(
            f'create {source}: "{source}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed.'
        )
    driver = read(options["DriverConfig"], _DRIVER, "HostConfig.Mounts.VolumeOptions.DriverConfig.")
    return MountPoint(
        "volume",
        destination,
        name=source,
        driver=driver["Name"] or "local",
        mode="z",
        rw=rw,
        subpath=_subpath("volume", options["Subpath"]),
        no_copy=options["NoCopy"],
        labels=tuple(options["Labels"].items()),
        driver_options=tuple(driver["Options"].items()),
    )


def _image_mount(destination: str, source: str, options: Mapping[str, Any]) -> MountPoint:
    """An image's content, read-only (API 1.48)."""
    if not source:
        raise InvalidInput('invalid mount config for type "image": field Source must not be empty')
    return MountPoint("image", destination, source, rw=False, subpath=_subpath("image", options["Subpath"]))


def _subpath(kind: str, path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise InvalidInput(f'invalid mount config for type "{kind}": subpath must be a relative path within the {kind}')
    return path


def _tmpfs_mount(destination: str, source: str, rw: bool, options: Mapping[str, Any]) -> MountPoint:
    if source:
        raise InvalidInput('invalid mount config for type "tmpfs": field Source must not be specified')
    chosen = [] if rw else ["ro"]
    if options["SizeBytes"]:
        chosen.append(f"size={options['SizeBytes']}")
    if options["Mode"]:
        chosen.append(f"mode={options['Mode']:o}")
    for item in options["Options"] if isinstance(options["Options"], list) else ["?"]:
        words = item if isinstance(item, list) else [item]
        chosen += _tmpfs_options("=".join(map(str, words)))
    return MountPoint("tmpfs", destination, rw=rw, options=tuple(chosen))


def inside_volume(root: Path, subpath: str) -> str:
    """The host path of `subpath` in a volume, every symlink on the way resolved as if the volume were the root. Raises InvalidInput."""
    if not subpath:
        return str(root)
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_in_root(base, subpath, O_PATH)
    except OSError as error:
        raise InvalidInput(f"cannot access path {subpath} of the volume at {root}: {error.strerror}") from error
    finally:
        os.close(base)
    try:
        return os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def realise(points: Iterable[MountPoint], volumes: Volumes) -> tuple[list[MountPoint], list[str]]:
    """Makes what the points need: volumes by name (or without one), missing directories of -v. The points with their sources, and the
    names of the volumes that are new.
    """
    made: list[MountPoint] = []
    created: list[str] = []
    for point in points:
        if point.type == "volume":
            known = bool(point.name) and _exists(volumes, point.name)
            volume = volumes.create(point.name, driver=point.driver, labels=dict(point.labels), options=dict(point.driver_options))
            if not known:
                created.append(volume["Name"])
            made.append(replace(point, name=volume["Name"], source=volume["Mountpoint"], anonymous=not point.name))
        else:
            if point.type == "bind" and point.make_source and not os.path.lexists(point.source):
                Path(point.source).mkdir(parents=True, exist_ok=True)
            made.append(point)
    return made, created


def _exists(volumes: Volumes, name: str) -> bool:
    try:
        volumes.inspect(name)
    except NotFound:
        return False
    return True
