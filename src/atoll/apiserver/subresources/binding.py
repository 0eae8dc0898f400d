"""Binding a pod to its node: what a scheduler posts."""

from __future__ import annotations

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.verbs.change import change
from atoll.units import timestamp_seconds

_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")


async def bind(core: Core, call: Call, binding: Object) -> Object:
    """Give the pod `call` names its node. Raises StatusError 400, 404, 409 when it has one or is being deleted."""
    target = binding.get("target") or {}
    node = target.get("name")
    if target.get("kind", "Node") != "Node" or not node:
        raise statuses.bad_request("target must name a Node")
    pods = core.registry.get("", "v1", "pods") or call.kind
    through = Call(call.user, "update", pods, call.namespace, call.name, "binding", call.dry_run)

    async def bound(item: Item) -> Object:
        pod: Object = orjson.loads(item.body)
        if pod["metadata"].get("deletionTimestamp"):
            raise statuses.conflict(pods, through.name or "", f"pod {through.name} is being deleted, cannot be assigned to a host")
        assigned = pod["spec"].get("nodeName")
        if assigned:
            raise statuses.conflict(pods, through.name or "", f'pod {through.name} is already assigned to node "{assigned}"')
        given = binding.get("metadata") or {}
        if given.get("uid") and given["uid"] != pod["metadata"]["uid"]:
            raise statuses.conflict(
                pods,
                through.name or "",
                f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {pod['metadata']['uid']}",
            )
        pod["spec"]["nodeName"] = node
        _tell_topology(core, node, pod)
        conditions = pod.setdefault("status", {}).setdefault("conditions", [])
        conditions[:] = [condition for condition in conditions if condition.get("type") != "PodScheduled"]
        conditions.append(
            {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": timestamp_seconds(core.clock())}
        )
        if given.get("annotations"):
            pod["metadata"].setdefault("annotations", {}).update(given["annotations"])
        return pod

    # The rules of the main door forbid what this door is for; nothing here comes from the caller but names.
    await change(core, through, bound, admit=False)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _tell_topology(core: Core, node: str, pod: Object) -> None:
    """PodTopologyLabels (KEP-4742): a pod carries its node's zone and region, which it can read by the downward API."""
    item = core.find("", "v1", "nodes", node)
    labels = (item.obj["metadata"].get("labels") or {}) if item else {}
    told = {name: labels[name] for name in _TOPOLOGY if name in labels}
    if told:
        pod["metadata"].setdefault("labels", {}).update(told)
