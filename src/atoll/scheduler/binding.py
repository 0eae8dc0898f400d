"""From a decision to a bound pod: the volumes first, then the binding.

Reservations are compare-and-swap writes of the volume's claimRef, and the node is told to the provisioner by the claim's selected-node
annotation; the volume binder completes both. The pod is bound once every claim is.
"""

from __future__ import annotations

import asyncio

from atoll.client.informer import Informer
from atoll.client.objects import Object, annotations_of, copy_of, key_of, name_of, namespace_of, uid_of
from atoll.client.protocol import Client
from atoll.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from atoll.client.volumes import BOUND_BY_CONTROLLER, SELECTED_NODE, claim_reference, is_bound
from atoll.errors import Conflict, Unavailable
from atoll.scheduler.plugins.volumebinding import VolumePlan

VOLUMES_TIMEOUT_S = 600.0  # VolumeBindingArgs.bindTimeoutSeconds


class ClaimWatch:
    """Waits for claims to be bound, woken by the informer."""

    def __init__(self, claims: Informer) -> None:
        self._claims = claims
        self._changed: dict[str, asyncio.Event] = {}
        claims.add_handler(self._on_change)

    async def wait_bound(self, key: str, node: str) -> None:
        """Raises Conflict when the claim is gone or its provisioner gave the node back."""
        event = self._changed.setdefault(key, asyncio.Event())
        while True:
            event.clear()
            claim = self._claims.get(key)
            if claim is None:
                raise Conflict(f"claim {key} is gone")
            if is_bound(claim):
                return
            if annotations_of(claim).get(SELECTED_NODE, node) != node:
                raise Conflict(f"claim {key} was given to another node")
            await event.wait()

    def _on_change(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        event = self._changed.get(key_of(obj))
        if event is not None:
            event.set()
            if new is None or is_bound(new):
                del self._changed[key_of(obj)]


async def bind_volumes(client: Client, claims: ClaimWatch, plan: VolumePlan, node: str) -> None:
    """Writes the plan and waits. Raises StatusError where a write lost a race, Unavailable when the volumes took too long."""
    for volume, claim in plan.reserve:
        if volume["spec"].get("claimRef", {}).get("uid") != uid_of(claim):
            changed = copy_of(volume)
            reserved_by_user = "claimRef" in changed["spec"]
            changed["spec"]["claimRef"] = claim_reference(claim)
            if not reserved_by_user:
                changed["metadata"].setdefault("annotations", {})[BOUND_BY_CONTROLLER] = "yes"
            await client.update(PERSISTENT_VOLUMES, changed)
    for claim in plan.provision:
        if annotations_of(claim).get(SELECTED_NODE) != node:
            meta = {"resourceVersion": claim["metadata"]["resourceVersion"], "annotations": {SELECTED_NODE: node}}
            await client.patch(PERSISTENT_VOLUME_CLAIMS, name_of(claim), {"metadata": meta}, namespace_of(claim))
    if not plan.waiting:
        return
    try:
        async with asyncio.timeout(VOLUMES_TIMEOUT_S):
            for claim in plan.waiting:
                await claims.wait_bound(key_of(claim), node)
    except TimeoutError:
        names = ", ".join(key_of(claim) for claim in plan.waiting)
        raise Unavailable(f"binding volumes: {names} were not bound within {VOLUMES_TIMEOUT_S:g} s") from None


async def bind_pod(client: Client, pod: Object, node: str) -> None:
    meta = {"name": name_of(pod), "namespace": namespace_of(pod), "uid": uid_of(pod)}
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
    await client.create(PODS, binding, namespace_of(pod), name=name_of(pod), subresource="binding")
