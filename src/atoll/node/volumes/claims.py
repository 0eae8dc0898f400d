"""From a pod's claim to the directory behind its volume: hostPath and local volumes, which is what this node can mount."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from atoll.client.objects import Object, annotations_of, uid_of
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from atoll.errors import StatusError
from atoll.node.volumes.errors import VolumeError

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_TYPES = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


@dataclass(frozen=True, slots=True)
class ClaimedVolume:
    path: Path
    read_only: bool
    takes_group: bool  # fsGroup is applied: the volume is the cluster's own, and no directory of the host's that others use


async def claimed_volume(client: Client, namespace: str, claim: str) -> ClaimedVolume:
    """Raises VolumeError while the claim is not bound, and for kinds of volume that are not supported."""
    try:
        found = await client.get(PERSISTENT_VOLUME_CLAIMS, claim, namespace)
        name = (found.get("spec") or {}).get("volumeName")
        if not name or (found.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(f'persistentvolumeclaim "{claim}" is not bound to a volume yet')
        volume = await client.get(PERSISTENT_VOLUMES, name)
    except StatusError as error:
        if is_not_found(error):
            raise VolumeError(str(error)) from error
        raise
    spec = volume["spec"]
    if (spec.get("claimRef") or {}).get("uid") != uid_of(found):
        raise VolumeError(f'persistentvolume "{name}" is bound to another claim than "{claim}"')
    if spec.get("volumeMode") == "Block":
        raise VolumeError(f'persistentvolume "{name}": volumeMode Block is not supported')
    read_only = set(spec.get("accessModes") or ()) == {"ReadOnlyMany"}
    if "hostPath" in spec:
        path = host_path(spec["hostPath"])
        return ClaimedVolume(path, read_only, bool(annotations_of(volume).get(PROVISIONED_BY)))
    if "local" in spec:
        path = Path(spec["local"]["path"])
        if not path.exists():
            raise VolumeError(f'persistentvolume "{name}": path {path} does not exist')
        return ClaimedVolume(path, read_only, takes_group=True)
    kinds = [key for key in spec if isinstance(spec[key], dict) and key not in ("capacity", "claimRef", "nodeAffinity")]
    raise VolumeError(f'persistentvolume "{name}": volume type {", ".join(kinds) or "unknown"} is not supported: use hostPath or local')


def host_path(source: Object) -> Path:
    """A hostPath after the checks of its type. Raises VolumeError."""
    path, kind = Path(source["path"]), source.get("type") or ""
    try:
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
        elif kind == "FileOrCreate":
            path.touch(0o644, exist_ok=True)
        elif kind in _TYPES:
            check, what = _TYPES[kind]
            if not check(os.stat(path).st_mode):
                raise VolumeError(f"hostPath type check failed: {path} is not {what}")
        elif kind:
            raise VolumeError(f"hostPath type {kind} is unknown")
        elif not path.exists():
            path.mkdir(parents=True, mode=0o755)  # what every runtime does with a type that says nothing
    except OSError as error:
        raise VolumeError(f"hostPath type check failed: {path}: {error.strerror}") from error
    return path
