"""Taint eviction: a NoExecute taint sends away the pods that do not tolerate it, at once or after the seconds they tolerate.

Keys are pods. The patience of a pod is counted from when the taint was put on, or from when the pod came to the node if that was later.
Only taints of the node controller carry their time (timeAdded); others count from when they were first seen here.
"""

from __future__ import annotations

from atoll.client.factory import BY_NODE
from atoll.client.nodes import taints_of, tolerates
from atoll.client.objects import Object, condition_of, is_deleting, key_of, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import NODES, PODS
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import condition
from atoll.controllers.pods import is_finished, parse_time
from atoll.errors import StatusError
from atoll.units import timestamp_seconds


def due(pod: Object, taints: list[Object], now: float) -> float | None:
    """When the pod must go, in epoch seconds; None when it may stay."""
    moments: list[float] = []
    tolerations = pod["spec"].get("tolerations") or []
    for taint in taints:
        if taint["effect"] != "NoExecute":
            continue
        matching = [each for each in tolerations if tolerates(each, taint)]
        if not matching:
            return now
        since = max(parse_time(taint.get("timeAdded")) or now, placed_at(pod))
        moments += [since + max(0, each["tolerationSeconds"]) for each in matching if each.get("tolerationSeconds") is not None]
    return min(moments, default=None)


def placed_at(pod: Object) -> float:
    """When the pod was bound; where that is not told, when it was made."""
    scheduled = condition_of(pod, "PodScheduled") or {}
    return parse_time(scheduled.get("lastTransitionTime")) or parse_time(pod["metadata"].get("creationTimestamp")) or 0.0


class TaintEvictionController(Controller):
    name = "taint-eviction-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._first_seen: dict[str, dict[tuple[str, str], str]] = {}  # node → taint's key and effect → time
        self._nodes = self.informer(NODES, handler=self._node_changed)
        self._pods = self.informer(PODS, BY_NODE, handler=self.enqueue)

    async def reconcile(self, key: str) -> None:
        pod = self._pods.get(key)
        if pod is None or is_deleting(pod) or is_finished(pod):
            return
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        if node is None:
            return
        now = self.clock()
        moment = due(pod, self._dated(node), now)
        if moment is None:
            return
        if moment > now:
            self.queue.add_after(key, moment - now)
            return
        await self._evict(pod)

    async def _evict(self, pod: Object) -> None:
        self.recorder.event(pod, PODS, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key_of(pod)}")
        target = condition(
            "DisruptionTarget",
            "True",
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            timestamp_seconds(self.clock()),
        )
        status = pod.get("status") or {}
        changed = {**pod, "status": {**status, "conditions": conditions.put(status.get("conditions"), target)}}
        try:
            await self.client.update(PODS, changed, subresource="status")
            await self.client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod))
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _dated(self, node: Object) -> list[Object]:
        """The node's taints, each with a time."""
        seen = self._first_seen.get(name_of(node), {})
        return [{"timeAdded": seen.get(_identity(taint)), **taint} for taint in taints_of(node)]

    def enqueue(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new["spec"].get("nodeName"):
            self.queue.add(key_of(new))

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._first_seen.pop(name_of(old or {}), None)
            return
        if old is not None and taints_of(old) == taints_of(new):
            return
        before, now = self._first_seen.get(name_of(new), {}), timestamp_seconds(self.clock())
        self._first_seen[name_of(new)] = {_identity(taint): before.get(_identity(taint), now) for taint in taints_of(new)}
        for pod in self._pods.by_index(BY_NODE, name_of(new)):
            self.queue.add(key_of(pod))


def _identity(taint: Object) -> tuple[str, str]:
    return taint["key"], taint["effect"]
