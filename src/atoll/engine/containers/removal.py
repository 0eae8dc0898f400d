"""Taking a container away with all that is its own: cgroups, network, directory, and, where wanted, volumes nobody named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from atoll.engine.containers.record import Container, Status
from atoll.engine.services import Services
from atoll.errors import Conflict, InUse, NotFound, SystemFailure


async def remove(services: Services, container: Container, *, force: bool = False, volumes: bool = False) -> None:
    """Takes a container away with all that is its own. Raises Conflict where it runs and is not forced."""
    async with container.lock:
        if container.removed:
            return
        if not force and (container.is_up or container.shown is Status.RESTARTING):
            raise Conflict(f'cannot remove container "/{container.name}": container is {_why_not(container.shown)}')
        if container.is_up:
            raise InUse(f"container {container.id} still runs")
        container.begin(status=Status.REMOVING)
        if container.is_kept:
            with contextlib.suppress(NotFound):
                await services.runtime.delete(container.id)
        await services.networker.disconnect(container)
        is_small = not _has_written(container)
        removal = asyncio.get_running_loop().run_in_executor(None, _remove_directory, container.paths.root)
        if not is_small:
            await removal  # whoever removes it wants the space
        try:
            services.registry.forget(container)  # a directory without a row is taken away at the next start
        except SystemFailure:  # the disk is full
            await removal
            services.registry.forget(container)
        for attach in container.take_pending():
            attach.release_keeper_ends()
        services.container_event(container, "destroy")
        container.gone()
    if volumes:
        remove_anonymous_volumes(services, container)


def _why_not(status: Status) -> str:
    if status is Status.PAUSED:
        return "paused and must be unpaused first"
    return f"{status.value}: stop the container before removing or force remove"


def _has_written(container: Container) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return bool(os.listdir(container.paths.upper))
    return False


def _remove_directory(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)


def remove_anonymous_volumes(services: Services, container: Container) -> None:
    """Those that were made for this container alone and that nobody gave a name."""
    for row in container.record.mounts:
        if row["anonymous"]:
            with contextlib.suppress(InUse, NotFound):  # another container has it, by --volumes-from
                services.volumes.remove(row["name"])
                services.events.publish("volume", "destroy", row["name"], {"driver": "local"})
