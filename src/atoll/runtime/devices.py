"""Device nodes of a container and the device-cgroup rules that go with them.

What every container has (OCI runtime-spec, "Default Devices") is made by init; this module names it, and turns a host's device nodes into
the entries of `linux.devices`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

from atoll.errors import InvalidInput

# Docker's and runc's: making any node is allowed (CAP_MKNOD), opening only these.
DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in (
            (1, 3),  # null
            (1, 5),  # zero
            (1, 7),  # full
            (1, 8),  # random
            (1, 9),  # urandom
            (5, 0),  # tty
            (5, 1),  # console
            (5, 2),  # ptmx
            (136, None),  # pts/*
            (10, 200),  # net/tun
        )
    ),
)
_SKIPPED = {"console", "fd", "mqueue", "ptmx", "pts", "shm", "stdin", "stdout", "stderr", ".lxc", ".lxd-mounts"}


@dataclass(frozen=True, slots=True)
class Device:
    """A device node to be made in the container; `permissions` is of "rwm" and rules the cgroup."""

    path: str
    type: str  # "c" or "b"
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"

    def oci(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "type": self.type,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }

    def rule(self) -> dict[str, Any]:
        return {"allow": True, "type": self.type, "major": self.major, "minor": self.minor, "access": self.permissions}


def host_devices(on_host: str, in_container: str, permissions: str = "rwm") -> list[Device]:
    """Docker's `--device`: one node, or each node below a directory. Raises InvalidInput when there is none."""
    if not permissions or set(permissions) - set("rwm"):
        raise InvalidInput(f"invalid device mode: {permissions}: use a combination of r, w and m")
    real = os.path.realpath(on_host)
    if os.path.isdir(real):
        found = [
            node
            for directory, _, names in os.walk(real)
            for name in names
            if (
                node := _node(
                    os.path.join(directory, name), os.path.join(in_container, os.path.relpath(directory, real), name), permissions
                )
            )
        ]
    else:
        node = _node(real, in_container, permissions)
        found = [node] if node else []
    if not found:
        raise InvalidInput(f'error gathering device information while adding custom device "{on_host}": not a device node')
    return found


def every_host_device() -> list[Device]:
    """What `--privileged` brings: each node of the host's /dev but terminals' and shared memory's own."""
    found: list[Device] = []
    for directory, subdirectories, names in os.walk("/dev"):
        subdirectories[:] = [name for name in subdirectories if name not in _SKIPPED]
        found.extend(node for name in names if name not in _SKIPPED and (node := _node(path := os.path.join(directory, name), path, "rwm")))
    return found


def _node(on_host: str, in_container: str, permissions: str) -> Device | None:
    try:
        status = os.lstat(on_host)
    except FileNotFoundError:
        return None
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else None
    if kind is None:
        return None
    number = status.st_rdev
    return Device(
        os.path.normpath(in_container),
        kind,
        os.major(number),
        os.minor(number),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        permissions,
    )
