"""User namespaces by their maps, and mounts that show other owners than the disk has (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12).

A namespace is made by a child that does nothing but be in it; once the maps are written its descriptor is all that is needed, and the child
goes. The maps are written by its number as this mount namespace's /proc knows it, which need not be the number it has for us.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final

from atoll.errors import InvalidInput, SystemFailure
from atoll.kernel import mounts, processes, syscall

_ATTR_IDMAP: Final = 0x100000
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
LINES_MAX: Final = 340  # the kernel's limit of a map

Maps = Sequence[Mapping[str, Any]]
"""OCI's: {"containerID", "hostID", "size"}."""


def user_namespace(uids: Maps, gids: Maps) -> int:
    """A descriptor of a new user namespace with these maps. Needs /proc, CAP_SETUID and CAP_SETGID.

    Raises InvalidInput, SystemFailure.
    """
    texts = {name: check(name, maps) for name, maps in (("uid_map", uids), ("gid_map", gids))}
    child = processes.clone(processes.NEWUSER)
    if child == 0:
        while True:
            signal.pause()
    try:
        known_as = _number_in_proc(child)
        for name, text in texts.items():
            try:
                with open(f"/proc/{known_as}/{name}", "wb", buffering=0) as file:
                    file.write(text)
            except OSError as error:
                raise SystemFailure(f"write {name} of a user namespace", error.errno or 0) from error
        return os.open(f"/proc/{known_as}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def map_mount(tree: int, namespace: int, *, recursive: bool) -> None:
    """Show the files of a detached mount with the owners that the user namespace gives them. Raises SystemFailure.

    Not every file system can; those that cannot answer EINVAL.
    """
    change = mounts.MountAttributes(_ATTR_IDMAP, 0, 0, namespace)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall.call("mount_setattr", tree, b"", flags, ctypes.byref(change), ctypes.sizeof(change), what="map the owners of a mount")


def host_id(maps: Maps, inside: int) -> int | None:
    """What a container's id is on the host; None for one that is not mapped."""
    for entry in maps:
        if 0 <= inside - entry["containerID"] < entry["size"]:
            return int(entry["hostID"] + inside - entry["containerID"])
    return None


def check(name: str, maps: Maps) -> bytes:
    """The map as the kernel reads it. Raises InvalidInput."""
    lines = []
    for entry in maps:
        numbers = [entry.get(key) for key in ("containerID", "hostID", "size")]
        if not all(isinstance(number, int) and 0 <= number < 1 << 32 for number in numbers):
            raise InvalidInput(f"{name}: {dict(entry)} needs containerID, hostID and size")
        lines.append(" ".join(map(str, numbers)))
    if not lines or len(lines) > LINES_MAX:
        raise InvalidInput(f"{name}: a user namespace needs 1 to {LINES_MAX} mappings, these are {len(lines)}")
    return "\n".join(lines).encode()


def _number_in_proc(pid: int) -> int:
    pidfd = os.pidfd_open(pid)
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
    finally:
        os.close(pidfd)
