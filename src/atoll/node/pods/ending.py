"""Ending a container: its preStop hook, its stop signal, and after the time of grace SIGKILL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from atoll.client.objects import Object
from atoll.client.recorder import EventType
from atoll.engine import Engine
from atoll.errors import AtollError, Conflict, NotFound
from atoll.node.pods.model import ContainerState
from atoll.node.probes.handlers import Target, act

HOOK_MAX_S = 30.0 * 60
KILL_WAIT_S = 10.0
DEFAULT_GRACE_S = 30  # terminationGracePeriodSeconds of a pod that says nothing

Tell = Callable[[EventType, str, str, str], None]

log = logging.getLogger(__name__)


class Deadline:
    """When grace ends, on the loop's clock. A second delete may bring it nearer while we wait."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + seconds
        self._nearer = asyncio.Event()

    @property
    def left(self) -> float:
        return max(0.0, self._at - self._loop.time())

    def shorten(self, seconds: float) -> None:
        at = self._loop.time() + seconds
        if at < self._at:
            self._at = at
            self._nearer.set()

    async def reached_before(self, future: asyncio.Future[object]) -> bool:
        """Wait for `future`; true when the deadline came first."""
        while not future.done() and self.left > 0:
            self._nearer.clear()
            nearer = asyncio.ensure_future(self._nearer.wait())
            try:
                await asyncio.wait((future, nearer), timeout=self.left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                nearer.cancel()
        return not future.done()


async def end(engine: Engine, container: Object, state: ContainerState, address: str, deadline: Deadline, tell: Tell) -> None:
    """Return once the container has ended. Idempotent; one that has gone is no error."""
    try:
        found = engine.containers.get(state.id)
    except NotFound:
        return
    if not found.is_up:
        return
    ended: asyncio.Future[object] = asyncio.ensure_future(engine.containers.wait(state.id))
    try:
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook and deadline.left > 0:
            await _hook(engine, container, state, hook, address, deadline, tell, ended)
        if not ended.done() and deadline.left > 0:
            await _signal(engine, state.id, found.record.config["StopSignal"] or "SIGTERM")
        if await deadline.reached_before(ended):
            await _signal(engine, state.id, "SIGKILL")
            await asyncio.wait((ended,), timeout=KILL_WAIT_S)
        if not ended.done():
            raise AtollError(f"container {state.name} ({state.id[:12]}) does not end after SIGKILL: a process of it hangs in the kernel")
    finally:
        ended.cancel()


async def _hook(
    engine: Engine,
    container: Object,
    state: ContainerState,
    hook: Object,
    address: str,
    deadline: Deadline,
    tell: Tell,
    ended: asyncio.Future[object],
) -> None:
    acting = asyncio.ensure_future(act(engine, Target(container, state.id, address), hook, HOOK_MAX_S))
    both: asyncio.Future[object] = asyncio.ensure_future(_first(acting, ended))
    try:
        if await deadline.reached_before(both):
            tell("Warning", "FailedPreStopHook", f"PreStopHook did not complete within {deadline.left:g} s", container["name"])
        elif acting.done() and not acting.result().ok:
            tell("Warning", "FailedPreStopHook", f"PreStopHook failed: {acting.result().message}", container["name"])
    except AtollError as error:
        tell("Warning", "FailedPreStopHook", f"PreStopHook failed: {error}", container["name"])
    finally:
        for task in (acting, both):
            task.cancel()
        await asyncio.gather(acting, both, return_exceptions=True)


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _signal(engine: Engine, container_id: str, name: str) -> None:
    try:
        await engine.containers.kill(container_id, name)
    except (Conflict, NotFound) as error:  # it has just ended by itself
        log.debug("signal %s to %s: %s", name, container_id[:12], error)
