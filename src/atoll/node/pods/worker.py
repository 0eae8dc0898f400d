"""One pod: brought from what is to what should be, its status told, and ended in order.

One task a pod, woken by changes of the pod, exits of its containers, findings of its probes and its own timer; each round reads what is,
asks `plan`, and performs the actions. The end of a pod is one walk: hooks and signals, the last status, everything the pod held given back,
and then the object's deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from atoll.client.objects import Object, annotations_of, is_deleting, key_of, labels_of
from atoll.client.protocol import is_conflict, is_not_found
from atoll.client.resources import PODS
from atoll.errors import AtollError, NotFound, StatusError, Unavailable
from atoll.node.pods import ending, model
from atoll.node.pods import plan as planning
from atoll.node.pods.admit import refusal_of
from atoll.node.pods.live import LivePod, Surroundings
from atoll.node.pods.model import Actual, ContainerState
from atoll.node.pods.starting import Starter
from atoll.node.pods.telling import ENDED, StatusTeller, foreign_conditions
from atoll.node.probes.prober import Prober
from atoll.node.volumes import VolumeError

RETRY_BASE_S = 0.5  # a failed round is tried again; doubles
RETRY_MAX_S = 60.0
RETELL_S = 1.0
ROUNDS_MAX = 64  # of one wake-up: each round starts what can be started, no pod has as many steps

log = logging.getLogger(__name__)


class PodWorker:
    """`update` tells of the pod, `vanished` that its object has gone, `wake` of all else. `run` until the pod has ended."""

    def __init__(self, pod: Object, around: Surroundings) -> None:
        self._live = LivePod(pod, around)
        self._around = around
        self._engine = around.engine
        self._woken = asyncio.Event()
        self._woken.set()
        self._timer: asyncio.TimerHandle | None = None
        self._ending = asyncio.Event()
        self._deadline: ending.Deadline | None = None
        self._object_gone = False
        self._files_due = False
        self._failures = 0
        self._teller = StatusTeller(self._live)
        self._starter = Starter(self._live, self.files_changed, self._tell_status)
        self._prober = Prober(around.engine, self._live.tell_of, self.wake)
        if is_deleting(pod):
            self._ending.set()

    @property
    def pod(self) -> Object:
        return self._live.pod

    @property
    def uid(self) -> str:
        return self._live.uid

    # Told from outside --------------------------------------------------------------------------------------------------------------

    def update(self, pod: Object) -> None:
        before, self._live.pod = self._live.pod, pod
        if is_deleting(pod):
            self._ending.set()
            if self._deadline is not None:
                self._deadline.shorten(float(pod["metadata"].get("deletionGracePeriodSeconds", ending.DEFAULT_GRACE_S)))
        elif labels_of(before) != labels_of(pod) or annotations_of(before) != annotations_of(pod):
            self.files_changed()
        elif before["spec"] != pod["spec"] or foreign_conditions(before) != foreign_conditions(pod):
            self.wake()

    def vanished(self) -> None:
        """The object was deleted by force: nothing of it may stay."""
        self._object_gone = True
        self._ending.set()
        if self._deadline is not None:
            self._deadline.shorten(1.0)

    def wake(self) -> None:
        self._woken.set()

    def files_changed(self) -> None:
        self._files_due = True
        self._woken.set()

    # The worker's task --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            while not self._ending.is_set():
                await self._interruptible(self._round())
            await self._terminate()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._prober.close()

    async def _interruptible(self, work: Coroutine[Any, Any, None]) -> None:
        """Until done, or until the pod is to end: then the work is cut off where it stands."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)
        if not task.cancelled():
            task.result()

    async def _round(self) -> None:
        await self._woken.wait()
        self._woken.clear()
        loop = asyncio.get_running_loop()
        try:
            again = await self._reconcile()
            self._failures = 0
        except (AtollError, OSError) as error:
            self._failures += 1
            again = loop.time() + min(RETRY_BASE_S * 2.0 ** min(self._failures, 10), RETRY_MAX_S)
            level = logging.INFO if isinstance(error, (Unavailable, VolumeError)) else logging.WARNING
            log.log(level, "pod %s: %s", key_of(self.pod), error)
        if not self._is_over() and not await self._tell_status():
            again = loop.time() + RETELL_S
        self._set_timer(again)

    def _set_timer(self, at: float | None) -> None:
        """The next round at the latest: the plan's own wish, or the renewal of a token."""
        loop = asyncio.get_running_loop()
        renewal = self._around.volumes.renewal(self.uid)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if renewal is not None and (at is None or loop.time() + renewal < at):
            self._timer = loop.call_later(renewal + 0.1, self.files_changed)
        elif at is not None:
            self._timer = loop.call_at(at + 0.005, self.wake)

    async def _reconcile(self) -> float | None:
        """Do all that can be done; when to look again."""
        if self._files_due:
            self._files_due = False
            self._live.waiting.clear()  # what was missing may be there
            await self._starter.refresh_volumes()
        loop = asyncio.get_running_loop()
        for _ in range(ROUNDS_MAX):
            actual = self._actual()
            self._watch_health(actual)
            step = planning.plan(self.pod, actual, loop.time(), time.time_ns())
            if not step.actions:
                if actual.sandbox and not planning.has_ended(self.pod, actual, time.time_ns()):
                    await self._starter.adopt_volumes()
                return step.again_at
            for action in step.actions:
                await self._perform(action, actual)
            if planning.Finish() in step.actions:
                return None
        return loop.time() + RETRY_BASE_S

    def _actual(self) -> Actual:
        return replace(self._live.actual(), health=self._prober.health)

    def _watch_health(self, actual: Actual) -> None:
        running = []
        for container in planning.all_containers(self.pod["spec"]):
            state = actual.newest(container["name"])
            if state is not None and state.is_running:
                running.append((container, state))
        self._prober.sync(running, self._live.address, self._live.adopted)

    async def _tell_status(self, *, is_ending: bool = False) -> bool:
        return await self._teller.tell(self._actual(), is_ending=is_ending)

    # Actions ------------------------------------------------------------------------------------------------------------------------

    async def _perform(self, action: planning.Action, actual: Actual) -> None:
        match action:
            case planning.MakeSandbox():
                await self._make_sandbox()
            case planning.Start(name, attempt):
                await self._starter.start(name, attempt, actual.newest(name))
            case planning.Kill(state, reason):
                self._live.tell_of("Normal", "Killing", reason, state.name)
                await self._end(state, ending.Deadline(self._grace()))
            case planning.Discard(identifier):
                await self._remove(identifier)
            case planning.Finish():
                await self._finish()

    async def _make_sandbox(self) -> None:
        try:
            await self._around.sandboxes.make(self.pod)
        except AtollError as error:
            self._live.tell("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            raise
        self._starter.forget_volumes()
        self._live.waiting.clear()

    async def _finish(self) -> None:
        """The pod is over, its object stays: what it held goes, its containers stay for their logs."""
        if self._is_over():
            return
        refusal = refusal_of(self.pod)
        if refusal is not None:
            self._live.tell("Warning", refusal.reason, refusal.message)
        elif planning.is_past_deadline(self.pod, time.time_ns()):
            self._live.tell("Normal", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        await self._stop_all(ending.Deadline(self._grace()))
        if not await self._tell_status(is_ending=True):
            raise Unavailable("the end of the pod is not told yet")
        await self._around.sandboxes.remove(self.uid)
        await self._around.volumes.release(self.uid)

    def _is_over(self) -> bool:
        """Nothing is left to do or to tell: its containers may be pruned now."""
        return self._teller.phase in ENDED and self._live.sandbox() is None

    # The end ------------------------------------------------------------------------------------------------------------------------

    async def _terminate(self) -> None:
        self._prober.stop_killing()
        self._deadline = ending.Deadline(self._grace())
        await self._stop_all(self._deadline)
        if not self._object_gone:
            await self._tell_status(is_ending=True)
        await self._around.sandboxes.remove(self.uid)
        for attempts in self._actual().containers.values():
            for state in attempts:
                await self._remove(state.id)
        await self._around.volumes.tear_down(self.uid)
        await self._delete_object()

    async def _stop_all(self, deadline: ending.Deadline) -> None:
        """Main containers at once, then sidecars in reverse order."""
        running = [state for attempts in self._actual().containers.values() for state in attempts if state.is_running]
        sidecars = [container["name"] for container in self.pod["spec"].get("initContainers") or () if model.is_sidecar(container)]

        async def stop(state: ContainerState) -> None:
            self._live.tell_of("Normal", "Killing", f"Stopping container {state.name}", state.name)
            await self._end(state, deadline)

        await asyncio.gather(*(stop(state) for state in running if state.name not in sidecars))
        for name in reversed(sidecars):
            await asyncio.gather(*(stop(state) for state in running if state.name == name))

    async def _end(self, state: ContainerState, deadline: ending.Deadline) -> None:
        await ending.end(self._engine, self._live.container(state.name), state, self._live.address, deadline, self._live.tell_of)

    async def _remove(self, identifier: str) -> None:
        with contextlib.suppress(NotFound):
            await self._engine.containers.remove(identifier, force=True, volumes=True)

    async def _delete_object(self) -> None:
        """The kubelet's last word on a pod. Tried until the API has heard it."""
        meta = self.pod["metadata"]
        failures = 0
        while not self._object_gone:
            try:
                await self._around.client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0, uid=self.uid)
                return
            except StatusError as error:
                if is_not_found(error) or is_conflict(error):
                    return
                log.warning("pod %s has ended but cannot be deleted: %s", key_of(self.pod), error)
            except Unavailable as error:
                log.info("pod %s has ended, the API does not answer: %s", key_of(self.pod), error)
            failures += 1
            await asyncio.sleep(min(RETRY_BASE_S * 2.0 ** min(failures, 10), RETRY_MAX_S))

    def _grace(self) -> float:
        """Seconds: what the deletion says, else the spec; a pod whose object was taken away gets one at most."""
        meta, spec = self.pod["metadata"], self.pod["spec"]
        if is_deleting(self.pod):
            return float(meta.get("deletionGracePeriodSeconds", ending.DEFAULT_GRACE_S))
        grace = float(spec.get("terminationGracePeriodSeconds", ending.DEFAULT_GRACE_S))
        return min(grace, 1.0) if self._object_gone else grace
