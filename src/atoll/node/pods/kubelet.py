"""All pods of the node: a worker for each, told of changes by the API's watch and the engine's events.

After a restart containers are found by their labels: those of a pod the API still has are adopted by its worker as they run, all others are
taken away. Nothing is removed before the first list of pods has arrived: an API server that does not answer costs no pod its life.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from atoll.client.informer import Informer
from atoll.client.objects import Object, key_of
from atoll.client.resources import PODS
from atoll.engine.containers.record import Container
from atoll.errors import AtollError, NotFound
from atoll.node.directories import pods_directory
from atoll.node.pods import model
from atoll.node.pods.live import Surroundings
from atoll.node.pods.worker import PodWorker

LEAVE_S = 40.0  # for pods to end when the node leaves: their grace is cut to LEAVE_GRACE_S
LEAVE_GRACE_S = 5.0
SLEEPY_EVENTS = frozenset({"exec_create", "exec_start", "exec_die", "attach", "resize", "top", "create", "destroy"})

log = logging.getLogger(__name__)


class Kubelet:
    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pods = Informer(around.client, PODS, field_selector=f"spec.nodeName={around.config.name}")
        self._pods.add_handler(self._changed)

    async def run(self) -> None:
        """Until cancelled; workers stop with it, containers go on."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pods.run(), name="pods of this node")
                group.create_task(self._follow_engine(), name="events of the engine")
                group.create_task(self._clean_up_once(), name="orphans")
        finally:
            await self._stop_workers()

    async def _stop_workers(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._workers.clear()

    # Reading, for the kubelet's API ---------------------------------------------------------------------------------------------------

    def pods(self) -> list[Object]:
        return self._pods.list()

    def pod(self, namespace: str, name: str) -> Object | None:
        return self._pods.get(f"{namespace}/{name}")

    def containers(self, pod: Object) -> dict[str, list[model.ContainerState]]:
        return model.states_of(pod["metadata"]["uid"], self._around.engine.registry)

    def netns(self, pod: Object) -> Path | None:
        """Of the pod's network; None for the host's. Raises NotFound where the pod has no sandbox."""
        sandbox = self._around.sandboxes.find(pod)
        if sandbox is None:
            raise NotFound(f"pod {key_of(pod)} is not running: it has no sandbox")
        return sandbox.netns

    # Pods come and go -----------------------------------------------------------------------------------------------------------------

    def _changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        if pod is None or model.is_mirror(pod):
            return
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if new is None:
            if worker is not None:
                worker.vanished()
        elif worker is not None:
            worker.update(new)
        else:
            self._begin(new)

    def _begin(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        worker = self._workers[uid] = PodWorker(pod, self._around)
        self._tasks[uid] = asyncio.create_task(self._guarded(worker), name=f"pod {key_of(pod)}")

    async def _guarded(self, worker: PodWorker) -> None:
        """A worker that breaks is begun again: one pod's trouble is not the others'."""
        while True:
            try:
                await worker.run()
            except AtollError as error:
                log.warning("pod %s: %s", key_of(worker.pod), error)
            except Exception:
                log.exception("the worker of pod %s failed", key_of(worker.pod))
            else:
                break
            await asyncio.sleep(5.0)
        self._workers.pop(worker.uid, None)
        self._tasks.pop(worker.uid, None)

    async def _follow_engine(self) -> None:
        while True:
            async for event in self._container_events():
                worker = self._workers.get(event["Actor"]["Attributes"].get(model.LABEL_UID, ""))
                if worker is not None and event["Action"].partition(":")[0] not in SLEEPY_EVENTS:
                    worker.wake()
            for worker in self._workers.values():  # cut off for lagging, or the engine is closing: look at everything
                worker.wake()
            await asyncio.sleep(1.0)

    async def _container_events(self) -> AsyncIterator[dict[str, Any]]:
        stream = self._around.engine.events.subscribe({"type": ["container"], "label": [model.LABEL_UID]})
        async with contextlib.aclosing(stream):
            async for event in stream:
                yield event

    # What nobody wants any more -------------------------------------------------------------------------------------------------------

    async def _clean_up_once(self) -> None:
        await self._pods.wait_synced()
        await self.clean_up({pod["metadata"]["uid"] for pod in self._pods.list()})

    async def clean_up(self, wanted: set[str]) -> None:
        """Take away containers, sandboxes and directories of pods that are neither in `wanted` nor in work: one may come meanwhile."""
        around = self._around
        for uid, container in list(model.by_pod(around.engine.registry)):
            if uid not in wanted and uid not in self._workers:
                log.info("container %s of a pod that has gone is removed", container.id[:12])
                await self._remove(container)
        directory = pods_directory(around.instance)
        present = set(os.listdir(directory)) if directory.is_dir() else set()
        for uid in (present | around.sandboxes.known()) - wanted:
            if uid in self._workers:
                continue
            await around.sandboxes.remove(uid)
            await around.volumes.tear_down(uid)

    async def _remove(self, container: Container) -> None:
        try:
            await self._around.engine.containers.remove(container.id, force=True, volumes=True)
        except AtollError as error:
            log.warning("container %s cannot be removed: %s", container.id[:12], error)

    async def evacuate(self) -> None:
        """The node leaves: end every pod's containers, in a short grace, and give back all they hold. Their objects stay as they are."""
        engine = self._around.engine
        ours = [container for _, container in model.by_pod(engine.registry)]

        async def stop(container: Container) -> None:
            with contextlib.suppress(AtollError):
                await engine.containers.stop(container.id, timeout=int(LEAVE_GRACE_S))

        try:
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*(stop(container) for container in ours if container.is_up))
        except TimeoutError:
            log.warning("containers of pods do not end within %g s: they are removed as they are", LEAVE_S)
        await self.clean_up(set())
