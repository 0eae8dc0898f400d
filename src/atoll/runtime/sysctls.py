"""Kernel settings of a container: only those that a namespace of its own keeps apart from the host's.

The rest of /proc/sys is the machine's: root in a container, given the chance, would set it for everybody. The rules are runc's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from atoll.errors import InvalidInput, SystemFailure
from atoll.kernel import inroot, processes

_IPC = frozenset(f"kernel/{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"))
_SWAPPED = str.maketrans("./", "/.")


def path(key: str) -> str:
    """Where `key` lies below /proc/sys, by sysctl(8)'s rule: whichever of "." and "/" comes first parts the names."""
    first = next((character for character in key if character in "./"), "/")
    return key if first == "/" else key.translate(_SWAPPED)


def check(values: Mapping[str, Any], namespaces: Iterable[Mapping[str, Any]]) -> None:
    """Raises InvalidInput for a setting that is not kept in one of the container's own `namespaces` (those of its OCI spec)."""
    own = {namespace["type"] for namespace in namespaces if not _is_hosts(namespace)}
    for key in values:
        place = path(key)
        names = place.split("/")
        if ".." in names or "." in names or "" in names:
            raise InvalidInput(f"invalid sysctl: {key!r}")
        if place in _IPC or place.startswith("fs/mqueue/"):
            needed = "ipc"
        elif names[0] == "net":
            needed = "network"
        elif place == "kernel/domainname":
            needed = "uts"
        else:
            raise InvalidInput(f'sysctl "{key}" is not in a separate kernel namespace')
        if needed not in own:
            raise InvalidInput(f'sysctl "{key}" not allowed in host {needed} namespace')


def write(root: int, values: Mapping[str, Any]) -> None:
    """Through the container's own /proc, before it is made read-only. Raises SystemFailure naming the key."""
    for key, value in values.items():
        try:
            inroot.write(root, f"/proc/sys/{path(key)}", str(value).encode())
        except OSError as error:
            raise SystemFailure(f"write sysctl key {key}", error.errno or 0) from error


def _is_hosts(namespace: Mapping[str, Any]) -> bool:
    joined, kind = namespace.get("path"), namespace["type"]
    if not joined or kind not in processes.NAMESPACES:
        return False
    try:
        return os.path.samefile(joined, f"/proc/self/ns/{processes.NAMESPACES[kind][1]}")
    except FileNotFoundError:
        return False  # whoever joins it names it
