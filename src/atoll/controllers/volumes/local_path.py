"""The local-path provisioner behind the default storage class: a volume is a directory on this machine.

Answers claims that the binder marked with its name, makes `<root>/<volume>_<namespace>_<claim>`, and a hostPath volume that only the
selected node may use. When the volume is released and its policy is Delete, the directory goes before the object does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from atoll.client.nodes import HOSTNAME_LABEL
from atoll.client.objects import Object, annotations_of, is_deleting, labels_of, name_of, namespace_of, uid_of
from atoll.client.protocol import is_already_exists, is_not_found
from atoll.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from atoll.client.volumes import PROVISIONED_BY, PROVISIONER, SELECTED_NODE, claim_reference, class_of, waits_for_consumer
from atoll.controllers.base import Context, Controller
from atoll.errors import StatusError, SystemFailure

PROVISIONER_NAME = "atoll.dev/local-path"
DIRECTORY_MODE = 0o777  # a pod's user is unknown here, and quota is none: as rancher's local-path and minikube's hostpath do
NAME_MAX = 255  # bytes of a file name; the uid in front keeps it unique
CLAIM, VOLUME = "claim:", "volume:"


def make_volume(claim: Object, storage_class: Object, path: Path, node: Object | None) -> Object:
    """The volume for a claim: bound to it from birth, so that no other claim can take it."""
    spec: Object = {
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
        "storageClassName": name_of(storage_class),
        "volumeMode": "Filesystem",
        "claimRef": claim_reference(claim),
        "hostPath": {"path": str(path), "type": "DirectoryOrCreate"},
    }
    if storage_class.get("mountOptions"):
        spec["mountOptions"] = storage_class["mountOptions"]
    if node is not None:
        hostname = labels_of(node).get(HOSTNAME_LABEL, name_of(node))
        term = {"matchExpressions": [{"key": HOSTNAME_LABEL, "operator": "In", "values": [hostname]}]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "annotations": {PROVISIONED_BY: PROVISIONER_NAME}},
        "spec": spec,
    }


def volume_name(claim: Object) -> str:
    return f"pvc-{uid_of(claim)}"


def refusal(claim: Object) -> str | None:
    """What of the claim a directory cannot give."""
    if claim["spec"].get("volumeMode") == "Block":
        return "a local path is a directory: volumeMode Block is not supported"
    if claim["spec"].get("dataSource") or claim["spec"].get("dataSourceRef"):
        return "a local path starts empty: dataSource is not supported"
    if claim["spec"].get("selector"):
        return "claim.spec.selector is not supported"
    return None


class LocalPathProvisioner(Controller):
    name = "local-path-provisioner"
    component = PROVISIONER_NAME
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._root = context.config.local_path_root
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS, handler=self._claim_changed)
        self._volumes = self.informer(PERSISTENT_VOLUMES, handler=self._volume_changed)
        self._classes = self.informer(STORAGE_CLASSES, handler=self._class_changed)
        self._nodes = self.informer(NODES)

    async def reconcile(self, key: str) -> None:
        if self._root is None:
            return
        if key.startswith(VOLUME):
            volume = self._volumes.get(key.removeprefix(VOLUME))
            if volume is not None and _is_ours_to_delete(volume):
                await self._delete(volume, self._root)
            return
        claim = self._claims.get(key.removeprefix(CLAIM))
        if claim is not None and self._should_provision(claim):
            await self._provision(claim, self._root)

    def _should_provision(self, claim: Object) -> bool:
        if is_deleting(claim) or claim["spec"].get("volumeName") or annotations_of(claim).get(PROVISIONER) != PROVISIONER_NAME:
            return False
        storage_class = self._classes.get(class_of(claim) or "")
        if storage_class is None or storage_class["provisioner"] != PROVISIONER_NAME:
            return False
        return SELECTED_NODE in annotations_of(claim) or not waits_for_consumer(storage_class)

    async def _provision(self, claim: Object, root: Path) -> None:
        if self._volumes.get(volume_name(claim)) is not None:
            return
        storage_class = self._classes.get(class_of(claim) or "")
        assert storage_class is not None
        problem = refusal(claim)
        if problem is not None:
            message = f'failed to provision volume with StorageClass "{name_of(storage_class)}": {problem}'
            self.recorder.event(claim, PERSISTENT_VOLUME_CLAIMS, "Warning", "ProvisioningFailed", message)
            return
        where = f'"{namespace_of(claim)}/{name_of(claim)}"'
        self.recorder.event(
            claim, PERSISTENT_VOLUME_CLAIMS, "Normal", "Provisioning", f"External provisioner is provisioning volume for claim {where}"
        )
        path = root / f"{volume_name(claim)}_{namespace_of(claim)}_{name_of(claim)}"[:NAME_MAX]
        try:
            await asyncio.to_thread(_make_directory, path)
        except OSError as error:
            self.recorder.event(claim, PERSISTENT_VOLUME_CLAIMS, "Warning", "ProvisioningFailed", f"cannot make {path}: {error.strerror}")
            raise SystemFailure(f"make volume directory {path}", error.errno or 0) from error
        node = self._nodes.get(annotations_of(claim).get(SELECTED_NODE, ""))
        try:
            await self.client.create(PERSISTENT_VOLUMES, make_volume(claim, storage_class, path, node))
        except StatusError as error:
            if not is_already_exists(error):
                raise
        message = f"Successfully provisioned volume {volume_name(claim)}"
        self.recorder.event(claim, PERSISTENT_VOLUME_CLAIMS, "Normal", "ProvisioningSucceeded", message)

    async def _delete(self, volume: Object, root: Path) -> None:
        path = Path(volume["spec"]["hostPath"]["path"])
        if path.parent != root or not path.name.startswith("pvc-"):
            message = f"{path} is not a directory this provisioner made below {root}: left alone"
            self.recorder.event(volume, PERSISTENT_VOLUMES, "Warning", "VolumeFailedDelete", message)
            return
        try:
            await asyncio.to_thread(_remove_directory, path)
        except OSError as error:
            self.recorder.event(volume, PERSISTENT_VOLUMES, "Warning", "VolumeFailedDelete", f"cannot remove {path}: {error.strerror}")
            raise SystemFailure(f"remove volume directory {path}", error.errno or 0) from error
        try:
            await self.client.delete(PERSISTENT_VOLUMES, name_of(volume), uid=uid_of(volume))
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.queue.add(f"{CLAIM}{namespace_of(new)}/{name_of(new)}")

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.queue.add(VOLUME + name_of(new))

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        for claim in self._claims.list():
            self._claim_changed(None, claim)


def _is_ours_to_delete(volume: Object) -> bool:
    ours = annotations_of(volume).get(PROVISIONED_BY) == PROVISIONER_NAME and "hostPath" in volume["spec"]
    released = (volume.get("status") or {}).get("phase") == "Released"
    return ours and released and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"


def _make_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, DIRECTORY_MODE)  # mkdir's mode is cut by the umask


def _remove_directory(path: Path) -> None:
    """Rmtree walks by file descriptors and follows no link, whatever a pod left there (shutil.rmtree.avoids_symlink_attacks)."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
