"""All volumes of one pod: made before its first container starts, kept true while it lives, taken away at its end.

`prepare` is idempotent and is called again for each change: files that come from ConfigMaps, Secrets, tokens and the pod's own labels are
compared and replaced at once where they differ. Memory-backed ones are tmpfs mounts; they and the pins of subPaths are what a pod must
give back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from atoll import units
from atoll.client.objects import Object
from atoll.client.protocol import Client
from atoll.client.resources import Resource
from atoll.config import Instance
from atoll.errors import SystemFailure
from atoll.kernel import mounts
from atoll.node.directories import PodDirectory
from atoll.node.objects import WatchedObjects
from atoll.node.pods.env import expand
from atoll.node.pods.spec import Mount, propagation
from atoll.node.volumes import atomic, claims, ownership, payload, subpath
from atoll.node.volumes.errors import VolumeError
from atoll.node.volumes.tokens import PodTokens

EMPTY_MODE = 0o777
_SECRET_KINDS = ("secret", "projected")  # never on a disk

Paths = dict[str, Path]
Changed = Callable[[], None]


class Volumes:
    def __init__(self, instance: Instance, client: Client, objects: WatchedObjects, allocatable: Mapping[str, str]) -> None:
        self._instance = instance
        self._client = client
        self._objects = objects
        self._allocatable = allocatable
        self.tokens = PodTokens(client)
        self._read_only: set[tuple[str, str]] = set()  # uid and volume, where the volume itself may not be written

    async def prepare(self, pod: Object, addresses: Mapping[str, str], changed: Changed) -> Paths:
        """Host paths by volume. `changed` is called when an object behind them changes. Raises VolumeError for the first that fails."""
        meta = pod["metadata"]
        directory = PodDirectory.of(self._instance, meta["uid"]).volumes
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)

        async def fetch(resource: Resource, name: str) -> Object | None:
            return await self._objects.get(resource, meta["namespace"], name, meta["uid"], changed)

        source = payload.Source(fetch, self.tokens, addresses, self._allocatable)
        found: Paths = {}
        for volume in pod["spec"].get("volumes") or ():
            try:
                found[volume["name"]] = await self._prepare_one(pod, volume, directory, source)
            except VolumeError as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
        return found

    async def refresh(self, pod: Object, addresses: Mapping[str, str], changed: Changed) -> None:
        """Brings the files of a running pod up to date. Raises VolumeError; what was there then stays."""
        if any(kind in volume for volume in pod["spec"].get("volumes") or () for kind in payload.PAYLOAD_KINDS):
            await self.prepare(pod, addresses, changed)

    async def _prepare_one(self, pod: Object, volume: Object, directory: Path, source: payload.Source) -> Path:
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        path: Path = directory / volume["name"]
        if any(kind in volume for kind in payload.PAYLOAD_KINDS):
            files = await payload.payload(pod, volume, source)
            await asyncio.to_thread(_write_payload, path, files, group, in_memory=any(kind in volume for kind in _SECRET_KINDS))
            return path
        if "emptyDir" in volume:
            await asyncio.to_thread(_make_empty, path, volume["emptyDir"] or {}, group)
            return path
        if "hostPath" in volume:
            return claims.host_path(volume["hostPath"])
        claim = self._claim_name(pod, volume)
        if claim is None:
            kinds = ", ".join(key for key in volume if key != "name")
            raise VolumeError(f"volume type {kinds} is not supported: use emptyDir, hostPath, configMap, secret, projected or a claim")
        claimed = await claims.claimed_volume(self._client, pod["metadata"]["namespace"], claim)
        key = (pod["metadata"]["uid"], volume["name"])
        if claimed.read_only or (volume.get("persistentVolumeClaim") or {}).get("readOnly"):
            self._read_only.add(key)
        elif group is not None and claimed.takes_group and not self._is_in_use(pod):
            once = (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") == "OnRootMismatch"
            await asyncio.to_thread(ownership.give_to_group, claimed.path, group, only_if_root_differs=once)
        return claimed.path

    def _is_in_use(self, pod: Object) -> bool:
        """Ownership is given once, before the pod's first container."""
        rows = (pod.get("status") or {}).get("containerStatuses") or ()
        return any(row.get("containerID") for row in rows)

    def _claim_name(self, pod: Object, volume: Object) -> str | None:
        if "persistentVolumeClaim" in volume:
            return str(volume["persistentVolumeClaim"]["claimName"])
        return f"{pod['metadata']['name']}-{volume['name']}" if "ephemeral" in volume else None

    async def mounts_of(self, pod: Object, container: Object, paths: Paths, env: Mapping[str, str]) -> list[Mount]:
        """What the container mounts. Raises VolumeError."""
        found = []
        meta = pod["metadata"]
        # Whoever could write there could lead the next update's clean-up, by a link, anywhere on the host (CVE-2017-1002102).
        ours = {volume["name"] for volume in pod["spec"].get("volumes") or () if any(kind in volume for kind in payload.PAYLOAD_KINDS)}
        directory = PodDirectory.of(self._instance, meta["uid"])
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            path = paths.get(mount["name"])
            if path is None:
                raise VolumeError(f'volume "{mount["name"]}" of container {container["name"]} is not among the pod\'s volumes')
            part = mount.get("subPath") or (expand(mount["subPathExpr"], env) if mount.get("subPathExpr") else "")
            if part:
                target = directory.subpaths / mount["name"] / container["name"] / str(index)
                path = await asyncio.to_thread(subpath.bind, path, part, target)
            read_only = bool(mount.get("readOnly")) or mount["name"] in ours or (meta["uid"], mount["name"]) in self._read_only
            recursive = mount.get("recursiveReadOnly") in {"Enabled", "IfPossible"}
            found.append(Mount(path, _absolute(mount["mountPath"]), read_only, propagation(mount), recursive))
        return found

    def renewal(self, uid: str) -> float | None:
        """Seconds until something of the pod's volumes must be renewed without being told."""
        return self.tokens.renewal(uid)

    async def release(self, uid: str) -> None:
        """Of a pod that has ended and whose object stays: nothing is followed or mounted for it any more. Idempotent."""
        self._objects.release(uid)
        self.tokens.forget(uid)
        self._read_only = {key for key in self._read_only if key[0] != uid}
        await asyncio.to_thread(unmount_below, PodDirectory.of(self._instance, uid).root)

    async def tear_down(self, uid: str) -> None:
        """Release, and remove the pod's directory. Idempotent. Data of claims and of the host stays."""
        await self.release(uid)
        await asyncio.to_thread(remove_directory, PodDirectory.of(self._instance, uid))


def remove_directory(directory: PodDirectory) -> None:
    """Mounts go first: never a file of what is still mounted."""
    unmount_below(directory.root)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory.root)


def unmount_below(root: Path) -> None:
    """The innermost before the outer."""
    for point in mounted_below(root):
        mounts.unmount(point, mounts.MNT_DETACH)


def mounted_below(root: Path) -> list[str]:
    prefix = f"{os.path.realpath(root)}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescaped(line.split()[4]) for line in file]
    return sorted((point for point in points if point.startswith(prefix)), key=len, reverse=True)


def _unescaped(point: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, char)
    return point


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _write_payload(path: Path, files: Mapping[str, atomic.File], group: int | None, *, in_memory: bool) -> None:
    path.mkdir(exist_ok=True)
    if in_memory and not path.is_mount():
        _mount_tmpfs(path, "mode=0755")
    atomic.write(path, files, group=group)


def _make_empty(path: Path, spec: Object, group: int | None) -> None:
    medium = spec.get("medium") or ""
    if medium not in ("", "Memory"):
        raise VolumeError(f"emptyDir medium {medium} is not supported: use Memory or none")
    is_new = not path.exists()
    path.mkdir(exist_ok=True)
    if medium == "Memory" and not path.is_mount():
        limit = spec.get("sizeLimit")
        size = f",size={int(units.parse_quantity(limit))}" if limit else ""
        _mount_tmpfs(path, f"mode=0777{size}")
        is_new = True
    if is_new:
        path.chmod(EMPTY_MODE)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o2777)


def _mount_tmpfs(path: Path, options: str) -> None:
    try:
        mounts.mount("tmpfs", str(path), "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
    except SystemFailure as error:
        if error.errno != errno.EBUSY:
            raise VolumeError(str(error)) from error
