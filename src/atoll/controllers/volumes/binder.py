"""The volume binder: every claim a volume, every volume one claim.

Binding writes the volume's side first and the claim's after it, each by compare-and-swap, so that whatever is interrupted is completed
or undone by looking at the two objects again. Claims of a class that waits for its first consumer are left until the scheduler writes
the selected node, or a volume's claimRef.
"""

from __future__ import annotations

from atoll.client.objects import Object, annotations_of, copy_of, is_deleting, make_key, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from atoll.client.volumes import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    NO_PROVISIONER,
    PROVISIONED_BY,
    PROVISIONER,
    PROVISIONER_BETA,
    SELECTED_NODE,
    claim_names,
    claim_reference,
    class_of,
    default_class,
    find_match,
    mismatch,
    refers_to,
    waits_for_consumer,
)
from atoll.controllers.base import Context, Controller
from atoll.controllers.pods import is_finished
from atoll.errors import StatusError

CLAIM, VOLUME = "claim:", "volume:"
BY_CLAIM = "claim"  # pods by namespace/claim


def claim_index(pod: Object) -> list[str]:
    return [f"{namespace_of(pod)}/{name}" for name in claim_names(pod)]


class VolumeBinder(Controller):
    name = "persistentvolume-binder-controller"
    component = "persistentvolume-controller"
    workers = 1  # one decision after the other: two claims must not want the same volume

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS, handler=self._claim_changed)
        self._volumes = self.informer(PERSISTENT_VOLUMES, handler=self._volume_changed)
        self._classes = self.informer(STORAGE_CLASSES, handler=self._class_changed)
        self._pods = self.informer(PODS, handler=None)
        self._pods.add_index(BY_CLAIM, claim_index)

    async def reconcile(self, key: str) -> None:
        if key.startswith(VOLUME):
            volume = self._volumes.get(key.removeprefix(VOLUME))
            if volume is not None:
                await self._sync_volume(volume)
            return
        claim = self._claims.get(key.removeprefix(CLAIM))
        if claim is None:
            return
        if BIND_COMPLETED in annotations_of(claim):
            await self._sync_bound(claim)
        elif not is_deleting(claim):
            await self._sync_unbound(claim)

    # Claims

    async def _sync_bound(self, claim: Object) -> None:
        """Once bound for ever bound: what lost its volume is Lost, and stays so until the user acts."""
        volume = self._volumes.get(claim["spec"].get("volumeName") or "")
        if volume is None and claim["spec"].get("volumeName"):
            volume = await self._read_volume(claim["spec"]["volumeName"])
        if volume is None:
            await self._lose(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
        elif volume["spec"].get("claimRef") is None or refers_to(volume, claim):
            await self._bind(volume, claim)
        else:
            await self._lose(claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")

    async def _read_volume(self, name: str) -> Object | None:
        """From the server: to call a claim lost since an informer lags would be a false alarm."""
        try:
            return await self.client.get(PERSISTENT_VOLUMES, name)
        except StatusError as error:
            if not is_not_found(error):
                raise
            return None

    async def _sync_unbound(self, claim: Object) -> None:
        named = claim["spec"].get("volumeName")
        if named:
            await self._sync_named(claim, self._volumes.get(named))
            return
        if class_of(claim) is None:
            default = default_class(self._classes.list())
            if default is not None:
                patch = {"spec": {"storageClassName": name_of(default)}}
                await self.client.patch(PERSISTENT_VOLUME_CLAIMS, name_of(claim), patch, namespace_of(claim))
                return  # comes back by its own event
        storage_class = self._classes.get(class_of(claim) or "")
        delayed = waits_for_consumer(storage_class) and SELECTED_NODE not in annotations_of(claim)
        volume = find_match(claim, self._volumes.list(), only_reserved=waits_for_consumer(storage_class))
        if volume is not None:
            await self._bind(volume, claim)
            return
        if delayed:
            self._tell_waiting(claim)
        elif class_of(claim):
            await self._ask_provisioner(claim, storage_class)
        else:
            message = "no persistent volumes available for this claim and no storage class is set"
            self._event(claim, "Normal", "FailedBinding", message)
        await self._set_claim_phase(claim, {"phase": "Pending"})

    async def _sync_named(self, claim: Object, volume: Object | None) -> None:
        """The user, or an interrupted binding, chose the volume."""
        if volume is None:
            await self._set_claim_phase(claim, {"phase": "Pending"})
        elif volume["spec"].get("claimRef") is None:
            problem = mismatch(volume, claim)
            if problem is None:
                await self._bind(volume, claim)
                return
            self._event(claim, "Warning", "VolumeMismatch", f'Cannot bind to requested volume "{name_of(volume)}": {problem}')
            await self._set_claim_phase(claim, {"phase": "Pending"})
        elif refers_to(volume, claim):
            await self._bind(volume, claim)
        else:
            self._event(claim, "Warning", "FailedBinding", f'volume "{name_of(volume)}" already bound to a different claim.')
            await self._set_claim_phase(claim, {"phase": "Pending"})

    def _tell_waiting(self, claim: Object) -> None:
        users = self._pods.by_index(BY_CLAIM, make_key(namespace_of(claim), name_of(claim)))
        unscheduled = sorted(name_of(pod) for pod in users if not is_finished(pod) and not pod["spec"].get("nodeName"))
        if unscheduled:
            self._event(claim, "Normal", "WaitForPodScheduled", f"waiting for pod {','.join(unscheduled)} to be scheduled")
        else:
            self._event(claim, "Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")

    async def _ask_provisioner(self, claim: Object, storage_class: Object | None) -> None:
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
            self._event(claim, "Warning", "ProvisioningFailed", message)
            return
        provisioner = storage_class["provisioner"]
        if provisioner == NO_PROVISIONER:
            return
        if annotations_of(claim).get(PROVISIONER) != provisioner:
            patch = {"metadata": {"annotations": {PROVISIONER: provisioner, PROVISIONER_BETA: provisioner}}}
            await self.client.patch(PERSISTENT_VOLUME_CLAIMS, name_of(claim), patch, namespace_of(claim))
        message = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        )
        self._event(claim, "Normal", "ExternalProvisioning", message)

    # Both sides

    async def _bind(self, volume: Object, claim: Object) -> None:
        reserved = volume["spec"].get("claimRef")
        if reserved is None or not reserved.get("uid"):
            changed = copy_of(volume)
            changed["spec"]["claimRef"] = claim_reference(claim)
            if reserved is None:
                changed["metadata"].setdefault("annotations", {})[BOUND_BY_CONTROLLER] = "yes"
            volume = await self.client.update(PERSISTENT_VOLUMES, changed)
        await self._set_volume_phase(volume, "Bound")
        if claim["spec"].get("volumeName") != name_of(volume) or BIND_COMPLETED not in annotations_of(claim):
            changed = copy_of(claim)
            annotations = changed["metadata"].setdefault("annotations", {})
            annotations[BIND_COMPLETED] = "yes"
            if not changed["spec"].get("volumeName"):
                changed["spec"]["volumeName"] = name_of(volume)
                annotations[BOUND_BY_CONTROLLER] = "yes"
            claim = await self.client.update(PERSISTENT_VOLUME_CLAIMS, changed)
        spec = volume["spec"]
        await self._set_claim_phase(
            claim, {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": spec.get("capacity") or {}}
        )

    async def _lose(self, claim: Object, reason: str, message: str) -> None:
        if (claim.get("status") or {}).get("phase") != "Lost":
            self._event(claim, "Warning", reason, message)
            await self._set_claim_phase(claim, {"phase": "Lost"})

    async def _set_claim_phase(self, claim: Object, status: Object) -> None:
        old = claim.get("status") or {}
        if {**old, **status} != old:
            await self.client.update(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {**old, **status}}, subresource="status")

    async def _set_volume_phase(self, volume: Object, phase: str) -> None:
        old = volume.get("status") or {}
        if old.get("phase") != phase:
            await self.client.update(PERSISTENT_VOLUMES, {**volume, "status": {**old, "phase": phase}}, subresource="status")

    # Volumes

    async def _sync_volume(self, volume: Object) -> None:
        reference = volume["spec"].get("claimRef")
        if reference is None or not reference.get("uid"):
            await self._set_volume_phase(volume, "Available")
            if reference is not None:
                self.queue.add(CLAIM + make_key(reference["namespace"], reference["name"]))
            else:
                self._wake_waiting_claims()
            return
        claim = await self._claim_of(reference)
        if claim is None:
            if (volume.get("status") or {}).get("phase") != "Failed":
                await self._set_volume_phase(volume, "Released")
            return
        if claim["spec"].get("volumeName") == name_of(volume):
            await self._set_volume_phase(volume, "Bound")
        elif not claim["spec"].get("volumeName"):
            self.queue.add(CLAIM + make_key(namespace_of(claim), name_of(claim)))
        elif BOUND_BY_CONTROLLER in annotations_of(volume) and PROVISIONED_BY not in annotations_of(volume):
            await self._unbind(volume)
        else:
            await self._set_volume_phase(volume, "Released")

    async def _claim_of(self, reference: Object) -> Object | None:
        """The very claim, by uid; read from the server before it is called gone, for a released volume may be wiped."""
        claim = self._claims.get(make_key(reference["namespace"], reference["name"]))
        if claim is None:
            try:
                claim = await self.client.get(PERSISTENT_VOLUME_CLAIMS, reference["name"], reference["namespace"])
            except StatusError as error:
                if not is_not_found(error):
                    raise
        return claim if claim is not None and uid_of(claim) == reference["uid"] else None

    async def _unbind(self, volume: Object) -> None:
        """We chose it, but the claim went elsewhere: give it back."""
        changed = copy_of(volume)
        del changed["spec"]["claimRef"]
        changed["metadata"]["annotations"].pop(BOUND_BY_CONTROLLER)
        await self._set_volume_phase(await self.client.update(PERSISTENT_VOLUMES, changed), "Available")

    # Wake-ups

    def _wake_waiting_claims(self) -> None:
        for claim in self._claims.list():
            if not claim["spec"].get("volumeName"):
                self.queue.add(CLAIM + make_key(namespace_of(claim), name_of(claim)))

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        claim = new or old
        assert claim is not None
        self.queue.add(CLAIM + make_key(namespace_of(claim), name_of(claim)))
        if new is None and claim["spec"].get("volumeName"):
            self.queue.add(VOLUME + claim["spec"]["volumeName"])

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        volume = new or old
        assert volume is not None
        self.queue.add(VOLUME + name_of(volume))
        reference = volume["spec"].get("claimRef")
        if reference is not None:
            self.queue.add(CLAIM + make_key(reference.get("namespace"), reference.get("name", "")))

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._wake_waiting_claims()

    def _event(self, claim: Object, kind: str, reason: str, message: str) -> None:
        self.recorder.event(claim, PERSISTENT_VOLUME_CLAIMS, "Warning" if kind == "Warning" else "Normal", reason, message)
