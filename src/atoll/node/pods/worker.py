"""One pod: brought from what is to what should be, its status told, and ended in order.

One task a pod, woken by changes of the pod, exits of its containers, findings of its probes and its own timers; each round reads what is,
asks `plan`, and performs the actions. The end of a pod is one walk: hooks and signals, the last status, the object's deletion, and then
everything the pod held is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.client.factory import InformerFactory
from atoll.client.objects import Object, annotations_of, is_deleting, key_of, labels_of
from atoll.client.protocol import Client, is_conflict, is_not_found
from atoll.client.recorder import EventType, Recorder
from atoll.client.resources import PODS, SECRETS, SERVICES, Resource
from atoll.config import Instance
from atoll.engine import Engine
from atoll.errors import AtollError, NotFound, StatusError, Unavailable
from atoll.images import Image
from atoll.node.config import NodeConfig
from atoll.node.directories import PodDirectory
from atoll.node.machine import Machine
from atoll.node.objects import WatchedObjects
from atoll.node.pods import ending, model
from atoll.node.pods import plan as planning
from atoll.node.pods import spec as specs
from atoll.node.pods.env import ConfigError, environment
from atoll.node.pods.messages import termination_message
from atoll.node.pods.model import Actual, ContainerState, Waiting
from atoll.node.pods.pulls import PullError, Pulls
from atoll.node.pods.sandbox import Sandbox, Sandboxes
from atoll.node.pods.status import OWNED, Facts, pod_status
from atoll.node.probes.handlers import Target, act
from atoll.node.probes.prober import Prober
from atoll.node.volumes import VolumeError, Volumes

RETRY_BASE_S = 0.5  # a failed round is tried again; doubles
RETRY_MAX_S = 60.0
CONFIG_RETRY_S = 5.0
DEFAULT_GRACE_S = 30
ROUNDS_MAX = 64  # of one wake-up: each start is a round of its own, no pod has as many containers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers share."""

    instance: Instance
    config: NodeConfig
    engine: Engine
    client: Client
    informers: InformerFactory
    recorder: Recorder
    objects: WatchedObjects
    volumes: Volumes
    sandboxes: Sandboxes
    pulls: Pulls
    machine: Machine


class PodWorker:
    """`update` tells of the pod, `vanished` that its object has gone, `wake` of all else. `run` until the pod has ended."""

    def __init__(self, pod: Object, around: Surroundings) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._around = around
        self._engine = around.engine
        self._woken = asyncio.Event()
        self._woken.set()
        self._ending = asyncio.Event()
        self._object_gone = False
        self._deadline: ending.Deadline | None = None
        self._files_due = False
        self._paths: dict[str, Path] | None = None
        self._waiting: dict[str, Waiting] = {}
        self._delays: dict[str, float] = {}
        self._messages: dict[str, str] = {}
        self._failures = 0
        self._rejection: tuple[str, str] | None = None
        self._told: Object | None = None  # the last status written
        self._adopted = {
            row["containerID"].removeprefix(model.CONTAINER_ID_SCHEME): row
            for name in ("initContainerStatuses", "containerStatuses")
            for row in (pod.get("status") or {}).get(name) or ()
            if row.get("containerID")
        }
        registry = around.engine.registry
        self._lost = [model.lost_state(row) for identifier, row in self._adopted.items() if registry.find(identifier) is None]
        self._prober = Prober(around.engine, self._tell_of, self.wake)
        if is_deleting(pod):
            self._ending.set()

    # Told from outside --------------------------------------------------------------------------------------------------------------

    def update(self, pod: Object) -> None:
        before, self.pod = self.pod, pod
        if is_deleting(pod):
            self._ending.set()
            if self._deadline is not None:
                self._deadline.shorten(float(pod["metadata"].get("deletionGracePeriodSeconds", DEFAULT_GRACE_S)))
            return
        if labels_of(before) != labels_of(pod) or annotations_of(before) != annotations_of(pod):
            self._files_due = True
            self.wake()
        elif before["spec"] != pod["spec"] or _foreign(before) != _foreign(pod):
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
                await self._interruptible(self._rounds())
            await self._terminate()
        finally:
            await self._prober.close()

    async def _interruptible(self, work: Coroutine[Any, Any, None]) -> None:
        """Until done, or until the pod is to end: then the work is cut off where it stands."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _rounds(self) -> None:
        await self._woken.wait()
        self._woken.clear()
        again: float | None = None
        try:
            again = await self._reconcile()
            self._failures = 0
        except (AtollError, OSError) as error:
            self._failures += 1
            again = asyncio.get_running_loop().time() + min(RETRY_BASE_S * 2.0 ** min(self._failures, 10), RETRY_MAX_S)
            level = logging.INFO if isinstance(error, (Unavailable, VolumeError)) else logging.WARNING
            log.log(level, "pod %s: %s", key_of(self.pod), error)
        await self._tell_status()
        if again is not None:
            self._wake_at(again)

    def _wake_at(self, at: float) -> None:
        asyncio.get_running_loop().call_at(at, self.wake)

    async def _reconcile(self) -> float | None:
        if self._files_due and self._paths is not None:
            self._files_due = False
            await self._around.volumes.refresh(self.pod, self._addresses(), self.files_changed)
        for _ in range(ROUNDS_MAX):
            actual = self._actual()
            loop = asyncio.get_running_loop()
            step = planning.plan(self.pod, actual, loop.time(), time.time_ns())
            self._watch_health(actual)
            if not step.actions:
                renewal = self._around.volumes.renewal(self.uid)
                if renewal is not None:
                    loop.call_later(renewal + 0.1, self.files_changed)
                return step.again_at
            for action in step.actions:
                if not await self._perform(action, actual):
                    return step.again_at
        return asyncio.get_running_loop().time() + RETRY_BASE_S

    async def _perform(self, action: planning.Action, actual: Actual) -> bool:
        """False when nothing more is to be done in this wake-up."""
        match action:
            case planning.MakeSandbox():
                await self._make_sandbox()
            case planning.Start(name, attempt):
                await self._start(name, attempt, actual)
            case planning.Kill(state, reason):
                await self._kill(state, reason)
            case planning.Discard(identifier):
                await self._remove(identifier)
            case planning.Finish():
                await self._finish(actual)
                return False
        return True

    # What is ------------------------------------------------------------------------------------------------------------------------

    def _actual(self) -> Actual:
        sandbox = self._sandbox()
        return Actual(
            sandbox=sandbox.id if sandbox else "",
            containers=self._states(),
            health=self._prober.health,
            waiting=self._waiting,
            delays=self._delays,
        )

    def _states(self) -> dict[str, list[ContainerState]]:
        found = model.states_of(self.uid, self._engine.registry)
        for state in self._lost:
            found.setdefault(state.name, []).append(state)
        return found

    def _sandbox(self) -> Sandbox | None:
        return self._around.sandboxes.find(self.pod)

    def _addresses(self) -> dict[str, str]:
        sandbox = self._sandbox()
        host = self._around.config.address
        address = sandbox.address if sandbox else ""
        return {"status.podIP": address, "status.podIPs": address, "status.hostIP": host, "status.hostIPs": host}

    def _watch_health(self, actual: Actual) -> None:
        running = []
        for container in planning.all_containers(self.pod["spec"]):
            state = actual.newest(container["name"])
            if state is not None and state.is_running:
                running.append((container, state))
        self._prober.sync(running, self._addresses()["status.podIP"], self._adopted)

    def _container(self, name: str) -> Object:
        return next((c for c in planning.all_containers(self.pod["spec"]) if c["name"] == name), {"name": name})

    # Actions ------------------------------------------------------------------------------------------------------------------------

    async def _make_sandbox(self) -> None:
        try:
            await self._around.sandboxes.make(self.pod)
        except AtollError as error:
            self._tell("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            raise
        self._paths = None
        self._waiting.clear()

    async def _prepare_volumes(self) -> dict[str, Path]:
        if self._paths is None:
            try:
                found = await self._around.volumes.prepare(self.pod, self._addresses(), self.files_changed)
            except VolumeError as error:
                self._tell("Warning", "FailedMount", str(error))
                raise
            self._paths = found
        return self._paths

    async def _start(self, name: str, attempt: int, actual: Actual) -> None:
        container = self._container(name)
        try:
            paths = await self._prepare_volumes()
            if not self._around.pulls.has(container):
                await self._tell_status()  # pulls take their time: say ContainerCreating first
            image = await self._around.pulls.ensure(
                container, await self._pull_secrets(), lambda kind, reason, message: self._tell_of(kind, reason, message, name)
            )
            body = await self._body(container, attempt, image, paths)
            ended = actual.newest(name)
            identifier = await self._create(container, attempt, body)
            self._waiting.pop(name, None)
            self._delays[name] = planning.next_delay(self._delays.get(name, 0.0), ended)
            await self._engine.containers.start(identifier)
        except PullError as error:
            self._wait(name, error.reason, str(error), error.retry_after)
        except ConfigError as error:
            self._tell_of("Warning", "Failed", f"Error: {error}", name)
            self._wait(name, "CreateContainerConfigError", str(error), CONFIG_RETRY_S)
        except VolumeError:
            raise
        except Unavailable:
            raise
        except AtollError as error:
            # A program that cannot be started leaves its container behind, with the error in it; the plan counts it as an exit.
            self._tell_of("Warning", "Failed", f"Error: {error}", name)
            if not any(state.start_error for state in self._actual().containers.get(name, ())[:1]):
                self._wait(name, "CreateContainerError", str(error), CONFIG_RETRY_S)
        else:
            self._tell_of("Normal", "Started", "Container started", name)
            await self._after_start(container, identifier)

    async def _create(self, container: Object, attempt: int, body: Mapping[str, Any]) -> str:
        identifier = await self._engine.containers.create(specs.container_name(self.pod, container, attempt), body)
        self._tell_of("Normal", "Created", "Container created", container["name"])
        return identifier

    async def _body(self, container: Object, attempt: int, image: Image, paths: dict[str, Path]) -> dict[str, Any]:
        around, pod = self._around, self.pod
        sandbox = self._sandbox()
        if sandbox is None:
            raise Unavailable(f"the sandbox of pod {key_of(pod)} has gone")
        if pod["spec"].get("shareProcessNamespace"):
            raise ConfigError("shareProcessNamespace is not supported: containers of a pod have process namespaces of their own")
        addresses = self._addresses()
        services = around.informers.informer(SERVICES)
        env = await environment(
            pod,
            container,
            fetch=self._fetch,
            services=services.list(),
            addresses=addresses,
            allocatable=around.machine.allocatable,
        )
        mounts = await around.volumes.mounts_of(pod, container, paths, env)
        mounts.append(self._message_mount(container, attempt))
        pid_mode = ""
        if container.get("targetContainerName"):
            target = self._actual().newest(container["targetContainerName"])
            pid_mode = f"container:{target.id}" if target and target.is_running else ""
        return specs.container_body(
            pod,
            container,
            attempt,
            image,
            around.sandboxes.place(pod, sandbox),
            env=env,
            mounts=mounts,
            instance=around.instance,
            memory_capacity=around.machine.memory,
            may_lower_oom=around.machine.may_lower_oom,
            pid_mode=pid_mode,
        )

    def _message_mount(self, container: Object, attempt: int) -> specs.Mount:
        path = PodDirectory.of(self._around.instance, self.uid).termination_log(container["name"], attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o666)
        return specs.Mount(path, container.get("terminationMessagePath") or "/dev/termination-log")

    async def _fetch(self, resource: Resource, name: str) -> Object | None:
        return await self._around.objects.get(resource, self.pod["metadata"]["namespace"], name, self.uid, self.files_changed)

    async def _pull_secrets(self) -> list[Object]:
        found = [await self._fetch(SECRETS, item["name"]) for item in self.pod["spec"].get("imagePullSecrets") or () if item.get("name")]
        return [secret for secret in found if secret is not None]

    async def _after_start(self, container: Object, identifier: str) -> None:
        hook = (container.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        target = Target(container, identifier, self._addresses()["status.podIP"])
        outcome = await act(self._engine, target, hook, ending.HOOK_MAX_S)
        if not outcome.ok:
            self._tell_of("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}", container["name"])
            state = self._actual().newest(container["name"])
            if state is not None:
                await self._kill(state, "FailedPostStartHook")

    async def _kill(self, state: ContainerState, reason: str) -> None:
        self._tell_of("Normal", "Killing", reason, state.name)
        deadline = ending.Deadline(self._grace())
        container = self._container(state.name)
        await ending.end(self._engine, container, state, self._addresses()["status.podIP"], deadline, self._tell_of)

    def _wait(self, name: str, reason: str, message: str, retry_after: float) -> None:
        at = asyncio.get_running_loop().time() + retry_after
        self._waiting[name] = Waiting(reason, message, at)
        self._wake_at(at + 0.01)

    def _grace(self) -> float:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        grace = meta.get("deletionGracePeriodSeconds") if is_deleting(self.pod) else None
        chosen = float(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S) if grace is None else grace)
        return min(chosen, 1.0) if self._object_gone and grace is None else chosen

    # The end ------------------------------------------------------------------------------------------------------------------------

    async def _finish(self, actual: Actual) -> None:
        """The pod is over, its object stays: what it held goes, its containers stay for their logs."""
        if not actual.sandbox and self._told is not None:
            return
        if planning.is_past_deadline(self.pod, time.time_ns()):
            self._tell("Normal", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        await self._stop_all(ending.Deadline(self._grace()))
        await self._tell_status(is_ending=True)
        await self._around.sandboxes.remove(self.uid)

    async def _terminate(self) -> None:
        self._prober.stop_killing()
        self._deadline = ending.Deadline(max(self._grace(), 0.0))
        await self._stop_all(self._deadline)
        if not self._object_gone:
            await self._tell_status(is_ending=True)
        await self._around.sandboxes.remove(self.uid)
        await self._remove_all()
        if not self._object_gone:
            await self._delete_object()

    async def _stop_all(self, deadline: ending.Deadline) -> None:
        """Main containers at once, then sidecars in reverse order."""
        actual = self._actual()
        address = self._addresses()["status.podIP"]
        running = [state for attempts in actual.containers.values() for state in attempts if state.is_running]
        sidecars = [c["name"] for c in self.pod["spec"].get("initContainers") or () if model.is_sidecar(c)]

        async def stop(state: ContainerState) -> None:
            self._tell_of("Normal", "Killing", f"Stopping container {state.name}", state.name)
            await ending.end(self._engine, self._container(state.name), state, address, deadline, self._tell_of)

        await asyncio.gather(*(stop(state) for state in running if state.name not in sidecars))
        for name in reversed(sidecars):
            await asyncio.gather(*(stop(state) for state in running if state.name == name))

    async def _remove_all(self) -> None:
        for attempts in self._actual().containers.values():
            for state in attempts:
                await self._remove(state.id)
        await self._around.volumes.tear_down(self.uid)

    async def _remove(self, identifier: str) -> None:
        with contextlib.suppress(NotFound):
            await self._engine.containers.remove(identifier, force=True, volumes=True)

    async def _delete_object(self) -> None:
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

    # Telling ------------------------------------------------------------------------------------------------------------------------

    async def _tell_status(self, *, is_ending: bool = False) -> None:
        """Write the status where it differs from the one written last."""
        actual = self._actual()
        sandbox = self._sandbox()
        facts = Facts(
            host_ip=self._around.config.address,
            pod_ip=sandbox.address if sandbox else "",
            now=time.time(),
            messages=self._termination_messages(actual),
            digests=self._digests(actual),
            is_ending=is_ending,
            rejection=self._rejection,
        )
        base = self.pod if self._told is None else {**self.pod, "status": {**self._told, "conditions": self._merged_conditions()}}
        status = pod_status(base, actual, facts)
        if status == self._told:
            return
        meta = self.pod["metadata"]
        patch = {"metadata": {"uid": self.uid}, "status": _replacing(status, self.pod.get("status") or {})}
        try:
            await self._around.client.patch(PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status")
        except StatusError as error:
            if is_not_found(error) or is_conflict(error):
                return  # it has gone, or another of its name has come
            log.warning("status of pod %s: %s", key_of(self.pod), error)
            self._wake_at(asyncio.get_running_loop().time() + 1.0)
            return
        except Unavailable as error:
            log.info("status of pod %s is not told yet: %s", key_of(self.pod), error)
            self._wake_at(asyncio.get_running_loop().time() + 1.0)
            return
        self._told = status

    def _merged_conditions(self) -> list[Object]:
        """Ours as told last; those of others as the API has them."""
        told = [c for c in (self._told or {}).get("conditions") or () if c["type"] in OWNED]
        return told + [c for c in (self.pod.get("status") or {}).get("conditions") or () if c.get("type") not in OWNED]

    def _termination_messages(self, actual: Actual) -> dict[str, str]:
        kept = {}
        directory = PodDirectory.of(self._around.instance, self.uid)
        for attempts in actual.containers.values():
            for state in attempts[:2]:
                if state.state is not model.State.EXITED or self._engine.registry.find(state.id) is None:
                    continue
                if state.id not in self._messages:
                    log_path = self._engine.containers.get(state.id).paths.log
                    path = directory.termination_log(state.name, state.attempt)
                    self._messages[state.id] = termination_message(self._container(state.name), state, path, log_path)
                kept[state.id] = self._messages[state.id]
        self._messages = kept
        return kept

    def _digests(self, actual: Actual) -> dict[str, str]:
        found = {}
        for attempts in actual.containers.values():
            for state in attempts[:1]:
                image = self._engine.images.find(state.image_id)
                if image is not None and image.repo_digests:
                    found[state.image_id] = image.repo_digests[0]
        return found

    def _tell(self, kind: EventType, reason: str, message: str) -> None:
        self._around.recorder.event(self.pod, PODS, kind, reason, message)

    def _tell_of(self, kind: str, reason: str, message: str, container: str) -> None:
        spec = self.pod["spec"]
        field = next((f for f in ("initContainers", "ephemeralContainers") if any(c["name"] == container for c in spec.get(f) or ())), None)
        path = f"spec.{field or 'containers'}{{{container}}}"
        self._around.recorder.event(self.pod, PODS, "Warning" if kind == "Warning" else "Normal", reason, message, field_path=path)


def _foreign(pod: Object) -> list[Object]:
    """Conditions that others write: readiness gates hang on them."""
    return [c for c in (pod.get("status") or {}).get("conditions") or () if c.get("type") not in OWNED]


def _replacing(status: Object, before: Object) -> Object:
    """As a strategic patch: lists that would be merged by address are replaced, fields that have gone are removed."""
    patch = dict(status)
    for name in ("podIPs", "hostIPs"):
        if status.get(name) and before.get(name) != status[name]:
            patch[name] = [*status[name], {"$patch": "replace"}]
    return patch
