"""Container Device Interface: devices that a vendor describes in a file, put into an OCI config (CNCF CDI specification, up to 1.1).

A file names a kind ("nvidia.com/gpu") and its devices, each with edits to the config: variables, device nodes, mounts, hooks, groups. The
edits that the file has for all its devices are made once, before those of the first device that is asked for. Directories are read anew
each time, since drivers write into them as devices come and go; of a device in two directories the later one counts, and one that
the same directory describes twice is nobody's.

    catalogue = Catalogue.read(("/etc/cdi", "/var/run/cdi"))
    catalogue.apply(config, ["nvidia.com/gpu=0"])
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.errors import InvalidInput, NotSupported
from atoll.runtime.hooks import NAMES as HOOKS
from atoll.runtime.spec import merge_env

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")  # the specification's; drivers write to the second
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
SPEC_MAX = 4 << 20  # bytes of one file
SHOWN_MAX = 20  # names in an error

_KIND = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?", re.ASCII)
_KINDS_OF_NODE = {"b": stat.S_ISBLK, "c": stat.S_ISCHR, "u": stat.S_ISCHR, "p": stat.S_ISFIFO}


@dataclass(frozen=True, slots=True)
class Specification:
    """One file: what it does for any of its devices, and what for each."""

    path: str
    kind: str
    edits: Mapping[str, Any]
    devices: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every device that can be asked for, by qualified name ("vendor/class=name"), and what was wrong with files that were passed over."""

    directories: tuple[str, ...]
    devices: Mapping[str, Specification]
    problems: tuple[str, ...]

    @classmethod
    def read(cls, directories: Sequence[str] = DIRECTORIES) -> Catalogue:
        devices: dict[str, Specification] = {}
        problems: list[str] = []
        for directory in directories:
            here: dict[str, Specification] = {}
            twice: set[str] = set()
            for path in _files(directory):
                try:
                    found = parse(path, _load(path))
                except InvalidInput as error:
                    problems.append(str(error))
                    continue
                names = {f"{found.kind}={name}" for name in found.devices}
                twice |= names & here.keys()
                here |= dict.fromkeys(names, found)
            problems += [f"{name} is described twice in {directory}" for name in sorted(twice)]
            devices |= here
            for name in twice:
                devices.pop(name, None)
        return cls(tuple(directories), devices, tuple(problems))

    def of_kind(self, kind: str) -> list[str]:
        """The names of a kind's devices, as people count them: 2 before 10."""
        names = [name.partition("=")[2] for name in self.devices if name.partition("=")[0] == kind]
        return sorted(names, key=lambda name: [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _parts(name)])

    def apply(self, config: dict[str, Any], names: Iterable[str]) -> None:
        """Edit the OCI `config` in place for the devices of these qualified names. Raises InvalidInput naming those that are not there."""
        wanted = list(dict.fromkeys(names))
        missing = [name for name in wanted if name not in self.devices]
        if missing:
            raise InvalidInput(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}: {self._found()}")
        begun: set[str] = set()
        for name in wanted:
            found = self.devices[name]
            if found.path not in begun:
                begun.add(found.path)
                _edit(config, found.edits, found.path)
            _edit(config, found.devices[name.partition("=")[2]], found.path)

    def _found(self) -> str:
        names = sorted(self.devices)
        shown = ", ".join(names[:SHOWN_MAX]) + (f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else "")
        there = f"there is {shown}" if names else f"no device is described in {' or '.join(self.directories)}"
        return "; ".join((there, *self.problems))


def is_qualified(text: str) -> bool:
    """Whether it looks like "vendor/class=name"."""
    kind, equals, name = text.partition("=")
    return bool(equals and _KIND.fullmatch(kind) and _NAME.fullmatch(name))


def parse(path: str, raw: Any) -> Specification:
    """Raises InvalidInput naming the file."""
    if not isinstance(raw, dict):
        raise InvalidInput(f"{path}: not a CDI specification: it must be an object")
    version, kind = raw.get("cdiVersion"), raw.get("kind")
    if version not in VERSIONS:
        raise InvalidInput(f"{path}: cdiVersion {version!r} is not known: 0.3.0 to {VERSIONS[-1]} are")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InvalidInput(f"{path}: the kind {kind!r} must be vendor/class")
    devices: dict[str, Mapping[str, Any]] = {}
    for device in _objects(raw.get("devices"), f"{path}: devices"):
        name = device.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInput(f"{path}: the device name {name!r} is not valid")
        if name in devices:
            raise InvalidInput(f"{path}: the device {name} is described twice")
        devices[name] = _edits(device.get("containerEdits"), f"{path}: device {name}")
    if not devices:
        raise InvalidInput(f"{path}: it describes no device")
    return Specification(path, kind, _edits(raw.get("containerEdits"), path), devices)


def _edits(raw: Any, where: str) -> Mapping[str, Any]:
    edits = {} if raw is None else raw
    if not isinstance(edits, dict):
        raise InvalidInput(f"{where}: containerEdits must be an object")
    for variable in _list(edits.get("env"), f"{where}: env"):
        if not isinstance(variable, str) or "=" not in variable[1:]:
            raise InvalidInput(f"{where}: the variable {variable!r} must be NAME=value")
    for node in _objects(edits.get("deviceNodes"), f"{where}: deviceNodes"):
        if not _is_path(node.get("path")) or node.get("type") not in (None, "", *_KINDS_OF_NODE):
            raise InvalidInput(f"{where}: a device node needs an absolute path, and a type of b, c, u or p if any")
        if not isinstance(node.get("permissions", ""), str) or set(node.get("permissions", "")) - set("rwm"):
            raise InvalidInput(f"{where}: permissions of {node['path']} must be of r, w and m")
        if not _is_path(node.get("hostPath", "/")):
            raise InvalidInput(f"{where}: the hostPath of {node['path']} must be absolute")
        for name in ("major", "minor", "fileMode", "uid", "gid"):
            if not _is_number(node.get(name, 0)):
                raise InvalidInput(f"{where}: {name} of {node['path']} must be a number")
    for mount in _objects(edits.get("mounts"), f"{where}: mounts"):
        if not mount.get("hostPath") or not isinstance(mount["hostPath"], str) or not _is_path(mount.get("containerPath")):
            raise InvalidInput(f"{where}: a mount needs a hostPath, and a containerPath that is absolute")
        if not _are_texts(mount.get("options")) or not isinstance(mount.get("type", ""), str):
            raise InvalidInput(f"{where}: options of the mount at {mount['containerPath']} must be a list of strings, its type a string")
    for hook in _objects(edits.get("hooks"), f"{where}: hooks"):
        if hook.get("hookName") not in HOOKS or not _is_path(hook.get("path")):
            raise InvalidInput(f"{where}: a hook needs an absolute path, and a hookName of {', '.join(HOOKS)}")
        if not _are_texts(hook.get("args")) or not _are_texts(hook.get("env")) or not _is_number(hook.get("timeout", 0)):
            raise InvalidInput(f"{where}: of the hook {hook['path']} args and env must be lists of strings, timeout a number")
    for group in _list(edits.get("additionalGids"), f"{where}: additionalGids"):
        if not _is_number(group):
            raise InvalidInput(f"{where}: the group {group!r} must be a number")
    if not isinstance(edits.get("intelRdt") or {}, dict):
        raise InvalidInput(f"{where}: intelRdt must be an object")
    return edits


def _edit(config: dict[str, Any], edits: Mapping[str, Any], path: str) -> None:
    process, linux = config["process"], config["linux"]
    if edits.get("netDevices"):
        raise NotSupported(f"{path}: it moves network interfaces into the container (netDevices), which is not supported")
    if edits.get("env"):
        process["env"] = merge_env(process.get("env") or [], edits["env"])
    for node in edits.get("deviceNodes") or ():
        _add_node(config, node, path)
    for mount in edits.get("mounts") or ():
        options = list(mount.get("options") or ("ro", "nosuid", "nodev"))
        kind = mount.get("type") or "bind"
        if kind == "bind" and not {"bind", "rbind"}.intersection(options):
            options.insert(0, "rbind")
        made = {"destination": mount["containerPath"], "type": kind, "source": mount["hostPath"], "options": options}
        config["mounts"] = [*(other for other in config.get("mounts") or () if other["destination"] != made["destination"]), made]
    for hook in edits.get("hooks") or ():
        fields = {name: hook[name] for name in ("path", "args", "env", "timeout") if hook.get(name)}
        config.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(fields)
    groups = [group for group in edits.get("additionalGids") or () if group]
    if groups:
        user = process["user"]
        if "username" in user:
            user["additionalGroups"] = list(dict.fromkeys([*(user.get("additionalGroups") or ()), *map(str, groups)]))
        else:
            user["additionalGids"] = list(dict.fromkeys([*(user.get("additionalGids") or ()), *groups]))
    if edits.get("intelRdt"):
        linux["intelRdt"] = {name: value for name, value in edits["intelRdt"].items() if value}


def _add_node(config: dict[str, Any], node: Mapping[str, Any], path: str) -> None:
    """What the file does not say of a node is looked up at the host's."""
    linux = config["linux"]
    kind, major, minor, mode = node.get("type") or "", node.get("major", 0), node.get("minor", 0), node.get("fileMode")
    if not kind or (kind != "p" and not (major or minor)):
        on_host = node.get("hostPath") or node["path"]
        try:
            status = os.stat(on_host)
        except OSError as error:
            raise InvalidInput(f"{path}: the device node {on_host} cannot be looked at: {error.strerror}: is its driver loaded?") from error
        kind = kind or next((name for name, fits in _KINDS_OF_NODE.items() if fits(status.st_mode)), "")
        if not kind or not _KINDS_OF_NODE[kind](status.st_mode):
            raise InvalidInput(f"{path}: {on_host} is not a device node" + (f" of type {kind}" if kind else ""))
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        mode = stat.S_IMODE(status.st_mode) if mode is None else mode
    device = {"path": node["path"], "type": kind, "major": major, "minor": minor}
    owner = _owner(config["process"]["user"])
    device |= {name: node.get(name, default) for name, default in zip(("uid", "gid"), owner, strict=True)}
    if mode is not None:
        device["fileMode"] = mode
    linux["devices"] = [*(other for other in linux.get("devices") or () if other["path"] != node["path"]), device]
    if kind in {"b", "c", "u"}:
        access = node.get("permissions") or "rwm"
        rule = {"allow": True, "type": "b" if kind == "b" else "c", "major": major, "minor": minor, "access": access}
        resources = linux.setdefault("resources", {})
        resources["devices"] = [*(resources.get("devices") or ()), rule]


def _owner(user: Mapping[str, Any]) -> tuple[int, int]:
    """A node is the container's user's, where that is known by number: a program that is not root shall be able to open it."""
    if "username" not in user:
        return int(user.get("uid", 0)), int(user.get("gid", 0))
    name, _, group = str(user["username"]).partition(":")
    uid = int(name) if name.isdigit() else 0
    return uid, int(group) if uid and group.isdigit() else 0


def _files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []  # most machines have none
    return [os.path.join(directory, name) for name in names if name.endswith((".json", ".yaml", ".yml"))]


def _load(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read(SPEC_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from error
    if len(data) > SPEC_MAX:
        raise InvalidInput(f"{path}: longer than {SPEC_MAX} bytes")
    if path.endswith(".json"):
        try:
            return json.loads(data)
        except ValueError as error:
            raise InvalidInput(f"{path}: {error}") from error
    import yaml  # slow to load, and seldom needed

    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(f"{path}: {' '.join(str(error).split())}") from error


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"([0-9]+)", name) if part]


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"{where} must be a list")
    return value


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    found = _list(value, where)
    if not all(isinstance(item, dict) for item in found):
        raise InvalidInput(f"{where} must be a list of objects")
    return found


def _are_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")
