"""Is the node still there? Its kubelet renews a Lease; when that stops for the grace period, the node's conditions become Unknown and
taints say so.

The time of a renewal is when it was seen here, not what the lease says, so that clocks need not agree. One timer a node, moved on by
each look; nothing polls.
"""

from __future__ import annotations

import asyncio

from atoll.client.factory import BY_NODE
from atoll.client.nodes import (
    TAINT_DISK_PRESSURE,
    TAINT_MEMORY_PRESSURE,
    TAINT_NETWORK_UNAVAILABLE,
    TAINT_NOT_READY,
    TAINT_PID_PRESSURE,
    TAINT_UNREACHABLE,
    TAINT_UNSCHEDULABLE,
    taints_of,
)
from atoll.client.objects import Object, condition_of, copy_of, is_true, name_of, namespace_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import LEASES, NODES, PODS
from atoll.controllers import conditions
from atoll.controllers.base import Context, Controller
from atoll.controllers.conditions import condition
from atoll.controllers.pods import is_finished
from atoll.errors import StatusError
from atoll.units import timestamp_seconds

LEASE_NAMESPACE = "kube-node-lease"
WATCHED_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
# Which condition, in which status, is which taint (upstream's TaintNodesByCondition).
_TAINTS = {
    ("Ready", "False"): TAINT_NOT_READY,
    ("Ready", "Unknown"): TAINT_UNREACHABLE,
    ("MemoryPressure", "True"): TAINT_MEMORY_PRESSURE,
    ("DiskPressure", "True"): TAINT_DISK_PRESSURE,
    ("PIDPressure", "True"): TAINT_PID_PRESSURE,
    ("NetworkUnavailable", "True"): TAINT_NETWORK_UNAVAILABLE,
}
_OURS = frozenset({*_TAINTS.values(), TAINT_UNSCHEDULABLE})


def desired_taints(node: Object, now: str) -> list[Object]:
    """The node's taints with ours brought in line with its conditions; those of others are kept."""
    old = taints_of(node)
    wanted: list[tuple[str, str]] = []
    for entry in (node.get("status") or {}).get("conditions") or ():
        key = _TAINTS.get((entry["type"], entry["status"]))
        if key is not None:
            wanted.append((key, "NoSchedule"))
            if entry["type"] == "Ready":
                wanted.append((key, "NoExecute"))
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.append((TAINT_UNSCHEDULABLE, "NoSchedule"))
    kept = [taint for taint in old if taint["key"] not in _OURS or (taint["key"], taint["effect"]) in wanted]
    there = {(taint["key"], taint["effect"]) for taint in kept}
    made: list[Object] = []
    for key, effect in wanted:
        if (key, effect) not in there:
            made.append({"key": key, "effect": effect} | ({"timeAdded": now} if effect == "NoExecute" else {}))
    return kept + made


def unknown_conditions(node: Object, now: str) -> list[Object]:
    """The conditions of a node that went silent."""
    entries = (node.get("status") or {}).get("conditions") or []
    for kind in WATCHED_CONDITIONS:
        old = conditions.find(entries, kind)
        if old is None:
            made = condition(kind, "Unknown", "NodeStatusNeverUpdated", "Kubelet never posted node status.", now)
        elif old["status"] == "Unknown":
            continue
        else:
            made = condition(kind, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", now)
            made["lastHeartbeatTime"] = old.get("lastHeartbeatTime", now)
        entries = [*conditions.without(entries, kind), made]
    return entries


class NodeLifecycleController(Controller):
    name = "node-lifecycle-controller"
    component = "node-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._seen: dict[str, float] = {}  # node → loop time of the last sign of life
        self._nodes = self.informer(NODES, handler=self._node_changed)
        self._leases = self.informer(LEASES, handler=self._lease_changed)
        self._pods = self.informer(PODS, BY_NODE)

    async def reconcile(self, key: str) -> None:
        node = self._nodes.get(key)
        if node is None:
            self._seen.pop(key, None)
            return
        left = self._seen.setdefault(key, _monotonic()) + self.config.node_monitor_grace_s - _monotonic()
        if left > 0:
            self.queue.add_after(key, left)
        else:
            node = await self._mark_silent(node)
        taints = desired_taints(node, timestamp_seconds(self.clock()))
        if taints != taints_of(node):
            patch = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": taints or None}}
            await self.client.patch(NODES, key, patch)
        if not is_true(node, "Ready"):
            await self._mark_pods(node)

    async def _mark_silent(self, node: Object) -> Object:
        entries = unknown_conditions(node, timestamp_seconds(self.clock()))
        if entries == (node.get("status") or {}).get("conditions"):
            return node
        self.recorder.event(node, NODES, "Normal", "NodeNotReady", f"Node {name_of(node)} status is now: NodeNotReady")
        changed = {**node, "status": {**(node.get("status") or {}), "conditions": entries}}
        return await self.client.update(NODES, changed, subresource="status")

    async def _mark_pods(self, node: Object) -> None:
        """Pods of a node that is not ready get no traffic: nobody there can vouch for them."""
        ready = condition_of(node, "Ready")
        if ready is None or ready["status"] != "Unknown":
            return
        now = timestamp_seconds(self.clock())
        for pod in self._pods.by_index(BY_NODE, name_of(node)):
            if is_finished(pod) or not is_true(pod, "Ready"):
                continue
            changed = copy_of(pod)
            for entry in changed["status"]["conditions"]:
                if entry["type"] == "Ready":
                    entry.update(status="False", lastTransitionTime=now)
            try:
                await self.client.update(PODS, changed, subresource="status")
            except StatusError as error:
                if not is_not_found(error):
                    raise
            self.recorder.event(pod, PODS, "Warning", "NodeNotReady", "Node is not ready")

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        node = new or old
        assert node is not None
        if new is not None and (old is None or _heartbeats(old) != _heartbeats(new)):
            self._seen[name_of(new)] = _monotonic()
        self.queue.add(name_of(node))

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None or namespace_of(new) != LEASE_NAMESPACE:
            return
        if old is not None and (old.get("spec") or {}).get("renewTime") == (new.get("spec") or {}).get("renewTime"):
            return
        name = name_of(new)
        self._seen[name] = _monotonic()
        node = self._nodes.get(name)
        if node is not None and _is_silent(node):
            self.queue.add(name)


def _monotonic() -> float:
    """The loop's clock: a machine that slept must not find all its nodes dead when it wakes."""
    return asyncio.get_running_loop().time()


def _heartbeats(node: Object) -> list[str | None]:
    return [entry.get("lastHeartbeatTime") for entry in (node.get("status") or {}).get("conditions") or ()]


def _is_silent(node: Object) -> bool:
    ready = condition_of(node, "Ready")
    return ready is not None and ready["status"] == "Unknown"
