"""A user namespace for a container: HostConfig.UsernsMode "map:BASE:SIZE", for callers in this process (the kubelet's pods).

The container's ids 0 to SIZE-1 are BASE to BASE+SIZE-1 on the host. What is bound into it is shown with mapped owners, so that a volume's
files belong inside to whom they belong on disk. Docker's own modes are "" and "host": it maps all containers of a daemon, or none.
"""

from __future__ import annotations

import re
from typing import Any

from atoll.errors import InvalidInput
from atoll.runtime.constants import MOUNT_NAMESPACE

_MAP = re.compile(r"map:([1-9][0-9]{0,9}):([1-9][0-9]{0,9})", re.ASCII)
_IDS_END = 1 << 32


def check(mode: str, *, trusted: bool) -> None:
    """Raises InvalidInput for a mode that is none, or not this caller's."""
    if mode not in {"", "host"} and not (trusted and parse(mode)):
        raise InvalidInput(f"invalid userns mode: {mode}")


def parse(mode: str) -> tuple[int, int] | None:
    """(base, size), None for a mode that maps nothing."""
    match = _MAP.fullmatch(mode)
    if match is None:
        return None
    base, size = int(match[1]), int(match[2])
    return (base, size) if base + size <= _IDS_END else None


def apply(spec: dict[str, Any], mode: str) -> None:
    """Put the namespace into an OCI config, in place."""
    found = parse(mode)
    if found is None:
        return
    base, size = found
    linux = spec["linux"]
    linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
    for kind in ("uidMappings", "gidMappings"):
        linux[kind] = [{"containerID": 0, "hostID": base, "size": size}]
    for mount in spec["mounts"]:
        options = mount.get("options") or []
        borrowed = any(option.startswith(f"{MOUNT_NAMESPACE}=") for option in options)
        if mount.get("type") == "bind" and not borrowed:
            mount["options"] = [*options, "idmap"]
