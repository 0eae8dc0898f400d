"""The scheduler's loop and its writes.

One pod after the other: snapshot, decide, assume, and on to the next while a task of its own binds this one. Everything that can make a
waiting pod fit comes by watch: nodes, pods that end, storage.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from atoll.client.factory import InformerFactory
from atoll.client.objects import Object, condition_of, is_deleting, key_of, labels_of, name_of, namespace_of, uid_of
from atoll.client.protocol import Client, is_conflict, is_not_found
from atoll.client.recorder import Recorder
from atoll.client.resources import NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from atoll.errors import AtollError
from atoll.scheduler import framework, preemption
from atoll.scheduler.binding import ClaimWatch, bind_pod, bind_volumes
from atoll.scheduler.cache import Cache
from atoll.scheduler.framework import FIT, INTER_POD, PORTS, SPREAD, VOLUMES, FitError
from atoll.scheduler.plugins.base import Unschedulable
from atoll.scheduler.plugins.volumebinding import VolumePlan, plan
from atoll.scheduler.preemption import Preemption
from atoll.scheduler.queue import QueuedPod, SchedulingQueue
from atoll.scheduler.requests import PodInfo, pod_info
from atoll.scheduler.snapshot import Snapshot, Storage
from atoll.units import timestamp_seconds

DEFAULT_NAME = "default-scheduler"
GATED = "Scheduling is blocked due to non-empty scheduling gates"

ROOM = frozenset({FIT, PORTS, SPREAD, INTER_POD})  # what a pod that ends can cure
COMPANY = frozenset({SPREAD, INTER_POD})  # what a pod that comes can cure
STORAGE = frozenset({VOLUMES})

logger = logging.getLogger(__name__)


class Scheduler:
    """Places pods whose schedulerName is `name`. The informers are shared and run by the caller."""

    def __init__(
        self,
        client: Client,
        informers: InformerFactory,
        *,
        name: str = DEFAULT_NAME,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._name = name
        self._clock = clock
        self._jitter = jitter
        self._recorder = Recorder(client, name, clock=clock)
        self._queue = SchedulingQueue()
        self._pods = informers.informer(PODS)
        nodes, namespaces = informers.informer(NODES), informers.informer(NAMESPACES)
        claims, volumes = informers.informer(PERSISTENT_VOLUME_CLAIMS), informers.informer(PERSISTENT_VOLUMES)
        classes = informers.informer(STORAGE_CLASSES)
        self._informers = (self._pods, nodes, namespaces, claims, volumes, classes)
        self._cache = Cache(Storage(claims.get, volumes.get, volumes.list, classes.get))
        self._claims = ClaimWatch(claims)
        self._pods.add_handler(self._pod_changed)
        nodes.add_handler(self._node_changed)
        namespaces.add_handler(self._namespace_changed)
        for informer in (claims, volumes, classes):
            informer.add_handler(lambda _old, _new: self._queue.wake(STORAGE))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run(), name="scheduler/events")
                for informer in self._informers:
                    await informer.wait_synced()
                while True:
                    entry = await self._queue.pop()
                    self._schedule(entry, group)
                    await asyncio.sleep(0)  # let watch events in between two decisions
        finally:
            self._queue.close()

    def _schedule(self, entry: QueuedPod, group: asyncio.TaskGroup) -> None:
        """One cycle, without waiting for anything: what it decides is written by tasks."""
        pod = entry.pod
        if self._cache.is_placed(pod) or is_deleting(pod):
            return
        label = key_of(pod)
        if pod["spec"].get("schedulingGates"):
            self._queue.fail(entry, set())
            group.create_task(self._tell(pod, "SchedulingGated", GATED), name=f"scheduler/gated/{label}")
            return
        info, snapshot = pod_info(pod), self._cache.snapshot()
        try:
            node = framework.choose(info, framework.find_feasible(info, snapshot), snapshot, self._jitter)
            volumes = plan(info, node.node, snapshot)
        except FitError as error:
            victims = self._look_for_victims(info, snapshot, error)
            self._queue.fail(entry, error.plugins or {FIT})
            group.create_task(self._report(info, str(error), victims), name=f"scheduler/report/{label}")
        except Unschedulable as verdict:
            self._queue.fail(entry, {VOLUMES})
            group.create_task(self._report(info, str(verdict), None), name=f"scheduler/report/{label}")
        except Exception:  # a malformed pod must not stop the scheduling of the others
            logger.exception("scheduling %s", label)
            self._queue.retry(entry)
        else:
            self._cache.assume(pod, node.name)
            group.create_task(self._bind(entry, node.name, volumes), name=f"scheduler/bind/{label}")

    def _look_for_victims(self, info: PodInfo, snapshot: Snapshot, error: FitError) -> Preemption | None:
        """What has to go for the pod; the node is promised to it from now on. None changes nothing."""
        if preemption.is_under_way(info, snapshot):
            return None
        found = preemption.find(info, snapshot, error)
        if found is not None:
            self._cache.nominations.add(info.pod, found.node)
            return found
        return preemption.WITHDRAWN if self._end_nomination(info.pod) else None

    def _end_nomination(self, pod: Object) -> bool:
        """The room is free for others again. False when the pod was promised none."""
        ended = self._cache.nominations.remove(pod)
        if ended:
            self._queue.wake(ROOM)
        return ended

    async def _bind(self, entry: QueuedPod, node: str, volumes: VolumePlan) -> None:
        pod = entry.pod
        try:
            await bind_volumes(self._client, self._claims, volumes, node)
            await bind_pod(self._client, pod, node)
        except (AtollError, OSError) as error:
            self._cache.forget(pod)
            if is_not_found(error):
                return
            if not is_conflict(error):
                logger.warning("binding %s to %s: %s", key_of(pod), node, error)
                self._recorder.event(pod, PODS, "Warning", "FailedScheduling", f"binding rejected: {error}")
            self._queue.retry(entry)
        except Exception:
            logger.exception("binding %s to %s", key_of(pod), node)
            self._cache.forget(pod)
            self._queue.retry(entry)
        else:
            message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {node}"
            self._recorder.event(pod, PODS, "Normal", "Scheduled", message)

    async def _report(self, info: PodInfo, message: str, victims: Preemption | None) -> None:
        """The event and the condition of a pod that fits nowhere; and the preemption, when one was found."""
        self._recorder.event(info.pod, PODS, "Warning", "FailedScheduling", message)
        for victim in victims.victims if victims else ():
            await self._preempt(info.pod, victim, victims.node if victims else "")
        await self._tell(info.pod, "Unschedulable", message, victims.node if victims else None)

    async def _tell(self, pod: Object, reason: str, message: str, nominated: str | None = None) -> None:
        try:
            await self._set_condition(pod, reason, message, nominated)
        except (AtollError, OSError) as error:
            if not (is_not_found(error) or is_conflict(error)):
                logger.warning("status of %s: %s", key_of(pod), error)
        except Exception:
            logger.exception("status of %s", key_of(pod))

    async def _set_condition(self, pod: Object, reason: str, message: str, nominated: str | None) -> None:
        latest = self._pods.get(key_of(pod)) or pod
        old = condition_of(latest, "PodScheduled")
        if old is not None and (old.get("reason"), old.get("message")) == (reason, message) and nominated is None:
            return
        now = timestamp_seconds(self._clock())
        since = old["lastTransitionTime"] if old is not None and old["status"] == "False" and old.get("lastTransitionTime") else now
        made = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since}
        await self._patch_status(pod, made, {} if nominated is None else {"nominatedNodeName": nominated})

    async def _preempt(self, pod: Object, victim: Object, node: str) -> None:
        self._recorder.event(victim, PODS, "Normal", "Preempted", f"Preempted by pod {uid_of(pod)} on node {node}")
        try:
            await self._mark_disrupted(victim)
            await self._client.delete(PODS, name_of(victim), namespace_of(victim), uid=uid_of(victim))
        except (AtollError, OSError) as error:  # the next attempt looks for victims anew
            if not is_not_found(error):
                logger.warning("preempting %s: %s", key_of(victim), error)
        except Exception:
            logger.exception("preempting %s", key_of(victim))

    async def _mark_disrupted(self, victim: Object) -> None:
        disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{self._name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": timestamp_seconds(self._clock()),
        }
        await self._patch_status(victim, disruption, {})

    async def _patch_status(self, pod: Object, condition: Object, fields: Object) -> None:
        """As a patch, which meets no conflict with what the kubelet writes at the same time."""
        patch = {"metadata": {"uid": uid_of(pod)}, "status": {"conditions": [condition], **fields}}
        await self._client.patch(PODS, name_of(pod), patch, namespace_of(pod), kind="strategic", subresource="status")

    # Watch events

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        assert pod is not None
        ended = new is None or (new.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if ended:
            if self._cache.is_placed(pod):
                self._cache.remove_pod(pod)
                self._queue.wake(ROOM)
            self._end_nomination(pod)
            self._queue.remove(key_of(pod))
        elif pod["spec"].get("nodeName"):
            self._queue.remove(key_of(pod))
            if old is None or (_matters(old), is_deleting(old)) != (_matters(pod), is_deleting(pod)):
                self._cache.put_pod(pod)
                self._queue.wake(COMPANY)
        elif pod["spec"].get("schedulerName", DEFAULT_NAME) != self._name:
            return
        elif is_deleting(pod):
            self._end_nomination(pod)
            self._queue.remove(key_of(pod))
        else:
            if self._cache.nominations.follow(old, pod):
                self._queue.wake(ROOM)
            if old is None or _matters(old) != _matters(pod):
                self._queue.put(pod)
            else:
                self._queue.refresh(pod)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            assert old is not None
            self._cache.remove_node(name_of(old))
            return
        if old is not None and _offers(old) == _offers(new):
            return  # heartbeats
        self._cache.put_node(new)
        self._queue.wake(None)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._cache.put_namespace(new)
        elif old is not None:
            self._cache.remove_namespace(name_of(old))


def _matters(pod: Object) -> tuple[object, ...]:
    """What of a pod decides about its place, and about those of others."""
    return uid_of(pod), pod["spec"], labels_of(pod)


def _offers(node: Object) -> tuple[object, ...]:
    """What of a node decides about pods."""
    status = node.get("status") or {}
    return labels_of(node), node.get("spec"), status.get("allocatable"), status.get("capacity"), status.get("images")
