"""After a crash or a restart of the daemon: rows and the runtime's own list are made to agree.

An act that was cut short is undone (creating, removing) or taken for what the runtime says of it (starting, running).
Containers that ended while nobody listened get their exit now. Then restart policies have their say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal as signals
import time
from collections.abc import Callable, Collection, Mapping

from atoll.engine.containers import health, restart
from atoll.engine.containers.lifecycle import Lifecycle, NotModified
from atoll.engine.containers.record import UP, Container, Status
from atoll.engine.containers.removal import remove
from atoll.engine.services import Services
from atoll.errors import AtollError, Conflict, NotFound
from atoll.runtime import ExitStatus, RuntimeState

RECONNECT_S = 0.01  # to wait before the first attempt; doubled up to the most
RECONNECT_MAX_S = 5.0

log = logging.getLogger(__name__)

LOST_EXIT = 255  # the exit of a container that ended unseen, with its keeper or its machine (Docker reports the same)


async def recover(services: Services, lifecycle: Lifecycle) -> int:
    """To be called once, before the first request. How many keepers had been lost when the one of now was asked what it has."""
    early: list[ExitStatus] = []
    services.runtime.on_exit.append(early.append)
    losses = services.runtime.losses
    states = {state.id: state for state in await services.runtime.list()}
    alive = [container.id for container in services.registry if _is_alive(states.get(container.id))]
    await services.networks.start(alive)
    due = set()
    for container in services.registry:
        if await _recover(services, lifecycle, container, states.get(container.id)):
            due.add(container.id)
    services.runtime.on_exit.remove(early.append)
    lifecycle.listen()
    for status in early:  # of what was alive in the list, perhaps
        ended = services.registry.find(status.id)
        if ended is not None and status.exec_id is None:
            await _end(lifecycle, ended, status)
    for state in states.values():
        if services.registry.find(state.id) is None:
            await _end_stray(services, state)
    for path in services.instance.containers.iterdir():
        if services.registry.find(path.name) is None:
            shutil.rmtree(path, ignore_errors=True)
    for container in services.registry:
        if container.auto_remove and not container.is_up and container.record.started_ns:
            await remove(services, container, volumes=True)
    starts = [_start(lifecycle, container) for container in services.registry if _should_start(container, due)]
    await asyncio.gather(*starts)
    return losses


async def watch_keeper(
    services: Services, lifecycle: Lifecycle, losses: int, on_list: Callable[[Mapping[str, RuntimeState]], None]
) -> None:
    """Runs until cancelled. When the keeper is lost, its successor is asked what it has taken over, and what it has not has ended.

    `losses` are those after which `recover` has asked; `on_list` is told what it has, too.
    """
    while True:
        await services.runtime.lost(losses)
        log.warning("the keeper went away")
        losses, states = await _reconnected(services)
        on_list(states)
        # All at once: who starts while one of them is dealt with is not in the list, and alive.
        gone = [(container, container.record.pid) for container in services.registry if _has_gone(container, states)]
        for container, pid in gone:
            state = states.get(container.id)
            if container.record.pid == pid:
                await _end(lifecycle, container, (state.exit if state is not None else None) or _lost(container))


def _has_gone(container: Container, states: Mapping[str, RuntimeState]) -> bool:
    return container.is_up and not _is_alive(states.get(container.id))


async def _reconnected(services: Services) -> tuple[int, dict[str, RuntimeState]]:
    """What the keeper, or its successor, has, asked until it answers; and how many had been lost before it was asked."""
    wait = RECONNECT_S
    while True:
        await asyncio.sleep(wait)
        try:
            await services.runtime.connect()
            losses = services.runtime.losses
            return losses, {state.id: state for state in await services.runtime.list()}
        except (AtollError, OSError) as error:
            log.warning("the keeper cannot be reached: %s", error)
            wait = min(2 * wait, RECONNECT_MAX_S)


async def _end_stray(services: Services, state: RuntimeState) -> None:
    """Ends what no row speaks of: a build's step, or a container that was removed in the instant of the crash."""
    with contextlib.suppress(NotFound, Conflict):
        if _is_alive(state):
            await services.runtime.signal(state.id, signals.SIGKILL)
            await services.runtime.wait(state.id)
    with contextlib.suppress(NotFound):
        await services.runtime.delete(state.id)


def _is_alive(state: RuntimeState | None) -> bool:
    return state is not None and state.status != "exited"


async def _recover(services: Services, lifecycle: Lifecycle, container: Container, state: RuntimeState | None) -> bool:
    """Whether a restart that was counted has not come any more."""
    status = container.status
    if state is not None and _is_alive(state):
        paused = state.status == "paused"
        started_ns = container.record.started_ns if status in UP else state.started_ns
        lifecycle.settle(
            container, status=Status.PAUSED if paused else Status.RUNNING, pid=state.pid, started_ns=started_ns or state.started_ns
        )
        health.begin(container, services)
    elif status in UP or _is_news(container, state):
        started_ns = container.record.started_ns if status in UP or state is None else state.started_ns
        lifecycle.settle(container, status=Status.RUNNING, started_ns=started_ns)
        ended = state.exit if state is not None else None
        await _end(lifecycle, container, ended or _lost(container))
    else:
        if state is not None:
            await lifecycle.let_go(container)
        if status is Status.RESTARTING:
            lifecycle.settle(container, status=Status.EXITED, pid=0, endpoints={})
            return True
    return False


def _is_news(container: Container, state: RuntimeState | None) -> bool:
    """Whether the keeper tells of an end that the row does not know: it was killed between the two otherwise."""
    return state is not None and state.exit is not None and state.exit.finished_ns != container.record.finished_ns


def _lost(container: Container) -> ExitStatus:
    return ExitStatus(container.id, None, LOST_EXIT, None, oom_killed=False, finished_ns=time.time_ns(), is_unknown=True)


async def _end(lifecycle: Lifecycle, container: Container, status: ExitStatus) -> None:
    with contextlib.suppress(NotFound):
        await lifecycle.ended(container, status)


def _should_start(container: Container, due: Collection[str]) -> bool:
    """`due` are those whose restart was counted already."""
    if container.status is not Status.EXITED or container.removed:
        return False
    return container.id in due or restart.wants_start_with_daemon(container.record)


async def _start(lifecycle: Lifecycle, container: Container) -> None:
    try:
        await lifecycle.start(container, by_policy=True)
    except NotModified:
        pass
    except AtollError as error:
        log.warning("container %s is not started again: %s", container.id[:12], error)
