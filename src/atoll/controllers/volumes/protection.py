"""Storage in use does not vanish: a claim stays while a pod uses it, a volume while a claim is bound to it.

Both by a finalizer, put on when the object is first seen and taken off when it is being deleted and nothing uses it.
"""

from __future__ import annotations

from atoll.client.objects import Object, is_deleting, key_of, name_of, namespace_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, Resource
from atoll.controllers.base import Context, Controller
from atoll.controllers.pods import is_finished
from atoll.controllers.volumes.binder import BY_CLAIM, claim_index
from atoll.errors import StatusError

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"


class _Protection(Controller):
    """Keeps `finalizer` on `resource` in step with use."""

    resource: Resource
    finalizer: str

    async def keep(self, obj: Object, *, in_use: bool) -> None:
        finalizers = obj["metadata"].get("finalizers") or []
        if is_deleting(obj):
            if self.finalizer in finalizers and not in_use:
                await self._write(obj, [each for each in finalizers if each != self.finalizer])
        elif self.finalizer not in finalizers:
            await self._write(obj, [*finalizers, self.finalizer])

    async def _write(self, obj: Object, finalizers: list[str]) -> None:
        meta = {"resourceVersion": obj["metadata"]["resourceVersion"], "finalizers": finalizers or None}
        try:
            await self.client.patch(self.resource, name_of(obj), {"metadata": meta}, namespace_of(obj))
        except StatusError as error:
            if not is_not_found(error):
                raise


class ClaimProtection(_Protection):
    name = "persistentvolumeclaim-protection-controller"
    resource = PERSISTENT_VOLUME_CLAIMS
    finalizer = CLAIM_FINALIZER

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS, handler=self.enqueue)
        self._pods = self.informer(PODS, handler=self._pod_changed)
        self._pods.add_index(BY_CLAIM, claim_index)

    async def reconcile(self, key: str) -> None:
        claim = self._claims.get(key)
        if claim is not None:
            await self.keep(claim, in_use=is_deleting(claim) and await self._is_used(key))

    async def _is_used(self, key: str) -> bool:
        """By the informer, and where it says no, by the server: a pod may have been created a moment ago."""
        if any(_uses(pod) for pod in self._pods.by_index(BY_CLAIM, key)):
            return True
        namespace = key.partition("/")[0]
        live = await self.client.list(PODS, namespace)
        return any(_uses(pod) and key in claim_index(pod) for pod in live.get("items") or ())

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod is not None:
                for key in claim_index(pod):
                    self.queue.add(key)


def _uses(pod: Object) -> bool:
    """A pod on a node may have the volume mounted until it is finished; one without a node will not get it when the claim is going away."""
    return bool(pod["spec"].get("nodeName")) and not is_finished(pod)


class VolumeProtection(_Protection):
    name = "persistentvolume-protection-controller"
    resource = PERSISTENT_VOLUMES
    finalizer = VOLUME_FINALIZER

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._volumes = self.informer(PERSISTENT_VOLUMES, handler=self.enqueue)

    async def reconcile(self, key: str) -> None:
        volume = self._volumes.get(key)
        if volume is not None:
            await self.keep(volume, in_use=(volume.get("status") or {}).get("phase") == "Bound")

    def enqueue(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.queue.add(key_of(new))
