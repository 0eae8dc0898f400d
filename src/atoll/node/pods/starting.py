"""Starting one container of a pod: volumes, image, environment, the engine's create and start, the postStart hook.

What stands in the way is remembered as the container's wait, with the reason the status shows and the time of the next try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from atoll.client.objects import Object, key_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import RUNTIME_CLASSES, SECRETS, SERVICES, Resource
from atoll.engine import runtimes
from atoll.errors import AtollError, InvalidInput, StatusError, Unavailable
from atoll.images import Image
from atoll.node.directories import PodDirectory
from atoll.node.pods import ending, spec, users
from atoll.node.pods.env import ConfigError, environment
from atoll.node.pods.live import LivePod
from atoll.node.pods.model import ContainerState, Waiting
from atoll.node.pods.plan import next_delay
from atoll.node.pods.pulls import PullError
from atoll.node.probes.handlers import Target, act
from atoll.node.volumes import VolumeError

CONFIG_RETRY_S = 5.0


class Starter:
    """`files_changed` is called when something a volume or the environment was made of changes."""

    def __init__(self, live: LivePod, files_changed: Callable[[], None], before_pull: Callable[[], Awaitable[object]]) -> None:
        self._live = live
        self._around = live.around
        self._engine = live.around.engine
        self._files_changed = files_changed
        self._before_pull = before_pull
        self._paths: dict[str, Path] | None = None

    def forget_volumes(self) -> None:
        """The sandbox is new: they are made sure of again."""
        self._paths = None

    async def refresh_volumes(self) -> None:
        """Files of volumes that are mounted follow their objects. Raises VolumeError."""
        if self._paths is not None:
            await self._around.volumes.refresh(self._live.pod, self._live.addresses(), self._files_changed)

    async def adopt_volumes(self) -> None:
        """Of containers that ran before this worker: begin to follow what their volumes are made of."""
        if self._paths is None:
            await self._volumes()

    async def start(self, name: str, attempt: int, ended: ContainerState | None) -> None:
        """Raises VolumeError and Unavailable, which concern the whole pod; what concerns the container alone becomes its wait."""
        live, container = self._live, self._live.container(name)
        try:
            paths = await self._volumes()
            if not self._around.pulls.has(container):
                await self._before_pull()
            secrets = await self._pull_secrets()
            image = await self._around.pulls.ensure(container, secrets, lambda kind, why, text: live.tell_of(kind, why, text, name))
            body = await self._body(container, attempt, image, paths)
            identifier = await self._engine.containers.create(spec.container_name(live.pod, container, attempt), body)
            live.tell_of("Normal", "Created", "Container created", name)
            live.waiting.pop(name, None)
            live.delays[name] = next_delay(live.delays.get(name, 0.0), ended)
            await self._engine.containers.start(identifier)
        except PullError as error:
            self._wait(name, error.reason, str(error), error.retry_after)
        except ConfigError as error:
            live.tell_of("Warning", "Failed", f"Error: {error}", name)
            self._wait(name, "CreateContainerConfigError", str(error), CONFIG_RETRY_S)
        except (VolumeError, Unavailable):
            raise
        except AtollError as error:
            live.tell_of("Warning", "Failed", f"Error: {error}", name)
            attempts = live.actual().containers.get(name) or []
            # A program that cannot be started leaves its container behind, with the error in it; the plan counts it as an exit.
            if not attempts or attempts[0].attempt != attempt or not attempts[0].start_error:
                self._wait(name, "CreateContainerError", str(error), CONFIG_RETRY_S)
        else:
            live.tell_of("Normal", "Started", "Container started", name)
            await self._after_start(container, identifier)

    async def _volumes(self) -> dict[str, Path]:
        if self._paths is None:
            try:
                self._paths = await self._around.volumes.prepare(self._live.pod, self._live.addresses(), self._files_changed)
            except VolumeError as error:
                self._live.tell("Warning", "FailedMount", str(error))
                raise
        return self._paths

    async def _body(self, container: Object, attempt: int, image: Image, paths: dict[str, Path]) -> dict[str, Any]:
        around, pod = self._around, self._live.pod
        sandbox = self._live.sandbox()
        if sandbox is None:
            raise Unavailable(f"the sandbox of pod {key_of(pod)} has gone")
        if pod["spec"].get("shareProcessNamespace"):
            raise ConfigError("shareProcessNamespace is not supported: containers of a pod have process namespaces of their own")
        env = await environment(
            pod,
            container,
            fetch=self._fetch,
            services=around.informers.informer(SERVICES).list(),
            addresses=self._live.addresses(),
            allocatable=around.machine.allocatable,
        )
        mounts = await around.volumes.mounts_of(pod, container, paths, env)
        return spec.container_body(
            pod,
            container,
            attempt,
            image,
            around.sandboxes.place(pod, sandbox),
            env=env,
            mounts=[*mounts, self._message_mount(container, attempt)],
            instance=around.instance,
            memory_capacity=around.machine.memory,
            may_lower_oom=around.machine.may_lower_oom,
            pid_mode=self._pid_mode(container),
            runtime=await self._runtime(),
            userns_mode=users.mode(pod, self._engine.registry),
        )

    async def _runtime(self) -> str:
        """HostConfig.Runtime, by the handler of the pod's RuntimeClass; "" for our own. Raises ConfigError."""
        name = self._live.pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        try:
            found = await self._around.client.get(RUNTIME_CLASSES, name)
            runtimes.find(self._engine.services.settings, found["handler"])
        except StatusError as error:
            if is_not_found(error):
                raise ConfigError(f'RuntimeClass "{name}" not found') from None
            raise
        except InvalidInput as error:
            raise ConfigError(f'no runtime for "{found["handler"]}" is configured: {error}') from error
        return str(found["handler"])

    def _pid_mode(self, container: Object) -> str:
        """Of `kubectl debug --target`: the process namespace of the container that is looked into."""
        name = container.get("targetContainerName")
        target = self._live.actual().newest(name) if name else None
        return f"container:{target.id}" if target is not None and target.is_running else ""

    def _message_mount(self, container: Object, attempt: int) -> spec.Mount:
        path = PodDirectory.of(self._around.instance, self._live.uid).termination_log(container["name"], attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o666)
        return spec.Mount(path, container.get("terminationMessagePath") or "/dev/termination-log")

    async def _fetch(self, resource: Resource, name: str) -> Object | None:
        namespace = self._live.pod["metadata"]["namespace"]
        return await self._around.objects.get(resource, namespace, name, self._live.uid, self._files_changed)

    async def _pull_secrets(self) -> list[Object]:
        names = [item["name"] for item in self._live.pod["spec"].get("imagePullSecrets") or () if item.get("name")]
        found = [await self._fetch(SECRETS, name) for name in names]
        return [secret for secret in found if secret is not None]

    async def _after_start(self, container: Object, identifier: str) -> None:
        hook = (container.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        live = self._live
        outcome = await act(self._engine, Target(container, identifier, live.address), hook, ending.HOOK_MAX_S)
        if outcome.ok:
            return
        live.tell_of("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}", container["name"])
        state = live.actual().newest(container["name"])
        if state is not None:
            live.tell_of("Normal", "Killing", "FailedPostStartHook", container["name"])
            grace = float(live.pod["spec"].get("terminationGracePeriodSeconds", ending.DEFAULT_GRACE_S))
            await ending.end(self._engine, container, state, live.address, ending.Deadline(grace), live.tell_of)

    def _wait(self, name: str, reason: str, message: str, retry_after: float) -> None:
        self._live.waiting[name] = Waiting(reason, message, asyncio.get_running_loop().time() + retry_after)
