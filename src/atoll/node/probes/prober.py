"""The probes of one pod: a task for each, from the start of its container to its end.

Before the startup probe has succeeded the others do not run. What they find is `Health` by container id, and a change of it wakes the pod's
worker; to kill and to start again is the plan's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from atoll.client.objects import Object
from atoll.client.recorder import EventType
from atoll.engine import Engine
from atoll.errors import NotSupported
from atoll.node.pods.model import ContainerState, Health
from atoll.node.probes.handlers import Outcome, Target, act

KINDS = ("startupProbe", "livenessProbe", "readinessProbe")
_TITLES = {"startupProbe": "Startup", "livenessProbe": "Liveness", "readinessProbe": "Readiness"}

Tell = Callable[[EventType, str, str, str], None]  # event type, reason, message, container

log = logging.getLogger(__name__)


class Prober:
    def __init__(self, engine: Engine, tell: Tell, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._tell = tell
        self._changed = changed
        self._health: dict[str, Health] = {}
        self._started: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    @property
    def health(self) -> Mapping[str, Health]:
        return self._health

    def sync(self, containers: Iterable[tuple[Object, ContainerState]], address: str, adopted: Mapping[str, Object]) -> None:
        """Probe these running containers and no others. `adopted` are the status rows, by container id, of a daemon before this one."""
        running = {state.id: container for container, state in containers}
        for known in [known for known in self._tasks if known not in running]:
            self._forget(known)
        for identifier, container in running.items():
            if identifier not in self._tasks:
                self._begin(container, identifier, address, adopted.get(identifier))

    def _begin(self, container: Object, identifier: str, address: str, adopted: Object | None) -> None:
        self._tasks[identifier] = []
        probes = {kind: container[kind] for kind in KINDS if container.get(kind)}
        if not probes:
            return
        self._health[identifier] = Health(
            started="startupProbe" not in probes or bool(adopted and adopted.get("started")),
            ready="readinessProbe" not in probes or bool(adopted and adopted.get("ready")),
        )
        self._started[identifier] = asyncio.Event()
        if self._health[identifier].started:
            self._started[identifier].set()
        target = Target(container, identifier, address)
        for kind, probe in probes.items():
            if kind == "startupProbe" and self._health[identifier].started:
                continue
            name = f"{kind} {container['name']} {identifier[:12]}"
            self._tasks[identifier].append(asyncio.create_task(self._guarded(kind, probe, target), name=name))

    async def _guarded(self, kind: str, probe: Object, target: Target) -> None:
        try:
            await self._probe(kind, probe, target)
        except NotSupported as error:
            self._tell("Warning", "ProbeError", f"{_TITLES[kind]} probe errored: {error}", target.container["name"])
        except Exception:
            log.exception("%s of container %s failed", kind, target.container_id[:12])

    async def _probe(self, kind: str, probe: Object, target: Target) -> None:
        identifier = target.container_id
        period = float(probe.get("periodSeconds") or 10)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        if kind != "startupProbe":
            await self._started[identifier].wait()
        passes = failures = 0
        needed = {True: int(probe.get("successThreshold") or 1), False: int(probe.get("failureThreshold") or 3)}
        while True:
            outcome = await act(self._engine, target, probe, float(probe.get("timeoutSeconds") or 1))
            passes, failures = (passes + 1, 0) if outcome.ok else (0, failures + 1)
            if not outcome.ok:
                self._tell("Warning", "Unhealthy", f"{_TITLES[kind]} probe failed: {outcome.message}", target.container["name"])
            if (passes if outcome.ok else failures) >= needed[outcome.ok] and self._judge(kind, identifier, outcome):
                return
            await asyncio.sleep(period)

    def _judge(self, kind: str, identifier: str, outcome: Outcome) -> bool:
        """True when the probe has no more to find out."""
        before = self._health[identifier]
        if kind == "readinessProbe":
            after, is_over = replace(before, ready=outcome.ok), False
        elif outcome.ok:
            after, is_over = replace(before, started=before.started or kind == "startupProbe"), kind == "startupProbe"
        else:
            after, is_over = replace(before, failure=f"failed {_TITLES[kind].lower()} probe"), True
        if after.started:
            self._started[identifier].set()
        if after != before:
            self._health[identifier] = after
            self._changed()
        return is_over

    def _forget(self, identifier: str) -> None:
        for task in self._tasks.pop(identifier):
            task.cancel()
        self._health.pop(identifier, None)
        self._started.pop(identifier, None)

    def stop_killing(self) -> None:
        """The pod is ending: only readiness goes on, for those who wait for its last answers."""
        for tasks in self._tasks.values():
            for task in tasks:
                if not task.get_name().startswith("readinessProbe"):
                    task.cancel()

    async def close(self) -> None:
        tasks = [task for group in self._tasks.values() for task in group]
        for task in tasks:
            task.cancel()
        self._tasks.clear()
        await asyncio.gather(*tasks, return_exceptions=True)
