"""Pods that no kubelet will ever take away: those of nodes that are gone, and the oldest finished ones when there are too many.

A pod whose node is missing waits 40 seconds first, since the node may be registering again, and the node is then looked for on the server.
"""

from __future__ import annotations

from atoll.client.factory import BY_NODE
from atoll.client.objects import Object, is_deleting, key_of, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import NODES, PODS
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import condition
from atoll.controllers.pods import is_finished
from atoll.errors import StatusError
from atoll.units import timestamp_seconds

QUARANTINE_S = 40.0  # upstream's
FINISHED = "*finished*"  # the key of the count of finished pods; no pod is called so


class PodGarbageCollector(Controller):
    name = "pod-garbage-collector-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._finished: set[str] = set()
        self._missing_since: dict[str, float] = {}
        self._nodes = self.informer(NODES, handler=self._node_changed)
        self._pods = self.informer(PODS, BY_NODE, handler=self._pod_changed)

    async def reconcile(self, key: str) -> None:
        if key == FINISHED:
            await self._delete_oldest()
            return
        pod = self._pods.get(key)
        if pod is None:
            return
        node = pod["spec"].get("nodeName")
        if node and self._nodes.get(node) is None:
            await self._check_orphan(key, pod, node)
        elif not node and is_deleting(pod):
            await self._delete(pod)

    async def _check_orphan(self, key: str, pod: Object, node: str) -> None:
        now = self.clock()
        left = self._missing_since.setdefault(node, now) + QUARANTINE_S - now
        if left > 0:
            self.queue.add_after(key, left)
            return
        try:
            await self.client.get(NODES, node)
        except StatusError as error:
            if not is_not_found(error):
                raise
            await self._fail(pod)
            await self._delete(pod)

    async def _fail(self, pod: Object) -> None:
        """What nobody watches any more has failed; whoever owns the pod may now replace it."""
        if is_finished(pod):
            return
        now = timestamp_seconds(self.clock())
        target = condition("DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists", now)
        status = pod.get("status") or {}
        changed = {**pod, "status": {**status, "phase": "Failed", "conditions": conditions.put(status.get("conditions"), target)}}
        try:
            await self.client.update(PODS, changed, subresource="status")
        except StatusError as error:
            if not is_not_found(error):
                raise

    async def _delete_oldest(self) -> None:
        surplus = len(self._finished) - self.config.terminated_pod_threshold
        if surplus <= 0:
            return
        pods = [pod for key in self._finished if (pod := self._pods.get(key)) is not None and not is_deleting(pod)]
        for pod in sorted(pods, key=lambda each: each["metadata"].get("creationTimestamp", ""))[:surplus]:
            await self._delete(pod)

    async def _delete(self, pod: Object) -> None:
        try:
            await self.client.delete(PODS, name_of(pod), namespace_of(pod), grace_seconds=0, uid=uid_of(pod))
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        key = key_of(pod)
        if new is None or not is_finished(new):
            self._finished.discard(key)
        else:
            self._finished.add(key)
            if len(self._finished) > self.config.terminated_pod_threshold:
                self.queue.add(FINISHED)
        if new is None:
            return
        node = new["spec"].get("nodeName")
        if (node and self._nodes.get(node) is None) or (not node and is_deleting(new)):
            self.queue.add(key)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._missing_since.pop(name_of(new), None)
            return
        assert old is not None
        for pod in self._pods.by_index(BY_NODE, name_of(old)):
            self.queue.add(key_of(pod))
