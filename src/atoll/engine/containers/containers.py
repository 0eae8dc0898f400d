"""The containers of an instance: the face that routes and the kubelet call. Each method takes a name, an id or the beginning of one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Literal

from atoll.engine.containers import inspect as inspecting
from atoll.engine.containers import links, logs, removal
from atoll.engine.containers.archive import Archive
from atoll.engine.containers.config import RESOURCES, check_resources, read, restart_policy
from atoll.engine.containers.create import Creator
from atoll.engine.containers.lifecycle import Lifecycle
from atoll.engine.containers.listing import Listing, tree_size
from atoll.engine.containers.record import Container, Status
from atoll.engine.containers.stats import Stats
from atoll.engine.containers.top import top
from atoll.engine.filters import Filters
from atoll.engine.services import Services
from atoll.engine.streams import Session
from atoll.engine.times import parse_moment
from atoll.errors import Conflict, InvalidInput, NotFound, NotSupported
from atoll.images import Platform
from atoll.runtime import Attach, ExitStatus
from atoll.runtime.resources import from_host_config

Batches = AsyncIterator[list[logs.Piece]]
Selection = logs.Selection
Rows = list[dict[str, Any]]
Condition = Literal["not-running", "next-exit", "removed"]
PRUNE_FILTERS = ("until", "label", "label!")


class Containers:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._registry = services.registry
        self._creator = Creator(services)
        self.lifecycle = Lifecycle(services, self._auto_remove)
        self._listing = Listing(services.registry, services.networker.shown, self._descends)
        self.archive = Archive(services)
        self.statistics = Stats(services)

    def get(self, reference: str) -> Container:
        """Raises NotFound("No such container: ...")."""
        return self._registry.get(reference)

    async def create(self, name: str | None, body: Mapping[str, Any]) -> str:
        """The new container's id; `body` is that of POST /containers/create. Raises NotFound, Conflict, InvalidInput."""
        container, _ = await self._creator.create(name, body)
        return container.id

    async def create_from_client(self, name: str | None, body: Mapping[str, Any], platform: Platform | None = None) -> dict[str, Any]:
        container, warnings = await self._creator.create(name, body, platform, trusted=False)
        return {"Id": container.id, "Warnings": warnings}

    async def start(self, reference: str) -> None:
        """Returns once the program runs. Raises NotModified, StartFailed (its `exit_code` is 126, 127 or 128)."""
        await self.lifecycle.start(self.get(reference))

    async def stop(self, reference: str, timeout: int | None = None, signal: str | None = None) -> None:  # noqa: ASYNC109
        await self.lifecycle.stop(self.get(reference), timeout, signal)

    async def restart(self, reference: str, timeout: int | None = None, signal: str | None = None) -> None:  # noqa: ASYNC109
        await self.lifecycle.restart(self.get(reference), timeout, signal)

    async def kill(self, reference: str, signal: str = "KILL") -> None:
        await self.lifecycle.kill(self.get(reference), signal)

    async def pause(self, reference: str) -> None:
        await self.lifecycle.pause(self.get(reference))

    async def resume(self, reference: str) -> None:
        await self.lifecycle.resume(self.get(reference))

    async def remove(self, reference: str, force: bool = False, volumes: bool = False) -> None:
        container = self.get(reference)
        if force:
            container.is_restarting = True  # this removal does what --rm would
            async with container.lock:
                pass  # a start that is under way comes first: its process is to be killed, too
        try:
            if force:
                with contextlib.suppress(Conflict):
                    await self.lifecycle.kill(container)
            await removal.remove(self._services, container, force=force, volumes=volumes)
        except BaseException:
            container.is_restarting = False
            raise

    async def unlink(self, reference: str, alias: str) -> None:
        """Takes a link away, and neither of its containers. Raises NotFound."""
        container = self.get(reference)
        async with container.lock:
            container.save(host=links.without(container, alias))

    async def _auto_remove(self, container: Container) -> None:
        await removal.remove(self._services, container, volumes=True)

    async def rename(self, reference: str, name: str) -> None:
        container = self.get(reference)
        async with container.lock:
            before = container.name
            if name.removeprefix("/") == before:
                raise InvalidInput("Renaming a container with the same name as its current name")
            if not name:
                raise InvalidInput("Neither old nor new names may be empty")
            chosen = self._registry.claim(name, container.id)
            container.save(name=chosen)
            self._registry.release(before, container.id)
            if container.is_up and container.record.networking:
                await self._services.networks.rename(container.id, chosen)
        self._services.container_event(container, "rename", oldName=f"/{before}")

    async def update(self, reference: str, body: Mapping[str, Any]) -> None:
        """New limits and restart policy; what is absent stays as it is."""
        container = self.get(reference)
        given = {name: value for name, value in read(body, RESOURCES).items() if body.get(name) is not None}
        if body.get("RestartPolicy"):
            given["RestartPolicy"] = restart_policy(body["RestartPolicy"])
            if container.auto_remove and given["RestartPolicy"]["Name"] not in {"", "no"}:
                raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        async with container.lock:
            before = container.record.host
            host = {**before, **given}
            if given.get("Memory", 0) > 0 and not given.get("MemorySwap"):
                _check_swap(given["Memory"], before["MemorySwap"])
                host["MemorySwap"] = before["MemorySwap"] or 2 * given["Memory"]
            check_resources(host)
            changed = {name for name in RESOURCES if host[name] != before[name]} | (set(given) & set(RESOURCES))
            if container.is_up:
                await self._services.runtime.update(container.id, from_host_config({name: host[name] for name in changed}))
            container.save(host=host)
        self._services.container_event(container, "update")

    async def resize(self, reference: str, width: int, height: int) -> None:
        container = self.get(reference)
        if not container.is_up:
            raise Conflict(f"container {container.id} is not running")
        await self._services.runtime.resize(container.id, None, width, height)
        self._services.container_event(container, "resize", height=str(height), width=str(width))

    async def wait(self, reference: str, condition: Condition = "not-running") -> ExitStatus:
        return await self.waiter(self.get(reference), condition)

    def waiter(self, container: Container, condition: Condition) -> asyncio.Future[ExitStatus]:
        """A future of the exit; made at once, so that an exit between this call and its await is not missed."""
        future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        is_idle = not container.is_up and container.status not in {Status.RESTARTING, Status.STARTING}
        if condition == "removed":
            container.removals.append(future)
        elif condition == "not-running" and is_idle:
            future.set_result(container.exit_status())
        else:
            container.exits.append(future)
        return future

    # seeing -------------------------------------------------------------------------------------------------------------------------

    def inspect(
        self, reference: str, *, size: bool = False, version: tuple[int, int] = inspecting.LEGACY_NETWORK_FIELDS_UNTIL
    ) -> dict[str, Any]:
        """The ContainerInspectResponse, in the shape of API `version`."""
        container = self.get(reference)
        found = inspecting.inspect(container, self._services.networker.shown(container), version)
        if size:
            found["SizeRw"] = tree_size(str(container.paths.upper))
            found["SizeRootFs"] = found["SizeRw"] + self._services.images.resolve(container.record.image).size
        return found

    def list(
        self,
        all: bool = False,  # noqa: A002
        filters: Filters | Mapping[str, Iterable[str]] | None = None,
        limit: int | None = None,
        size: bool = False,
    ) -> Rows:
        """Summaries as of GET /containers/json, the newest first; running ones only, unless `all`."""
        rows = self._listing.query(everything=all, filters=Filters.of(filters), limit=limit, size=size)
        if size:
            for row in rows:
                row["SizeRootFs"] = row["SizeRw"] + self._services.images.resolve(row["ImageID"]).size
        return rows

    def _descends(self, image_id: str, reference: str) -> bool:
        """Whether the image is `reference`, or is built on it."""
        wanted = self._services.images.resolve(reference)
        if wanted.id == image_id:
            return True
        chain = tuple(layer.chain_id for layer in self._services.images.resolve(image_id).layers)
        return wanted.chain_id is not None and wanted.chain_id in chain

    async def top(self, reference: str, arguments: str = "-ef") -> dict[str, Any]:
        container = self.get(reference)
        if not container.is_up:
            raise Conflict(f"container {container.id} is not running")
        rows = await top(await self._services.runtime.pids(container.id), arguments)
        self._services.container_event(container, "top")
        return rows

    async def logs(
        self,
        reference: str,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        since: int | None = None,
        until: int | None = None,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[tuple[str, bytes]]:
        """Lines as (stream, bytes). `since` and `until` in nanoseconds; with `follow`, until the container ends."""
        selection = logs.Selection(stdout, stderr, since, until, tail, timestamps)
        async for batch in self.log_batches(self.get(reference), selection, follow=follow):
            for piece in batch:
                yield piece

    def log_batches(self, container: Container, selection: Selection, *, follow: bool) -> Batches:
        if container.record.host["LogConfig"]["Type"] == "none":
            raise NotSupported("configured logging driver does not support reading")
        ended = self.waiter(container, "not-running") if follow else None
        if ended is not None and selection.until_ns:
            return logs.read(container.paths.log, selection, _before(ended, selection.until_ns))
        return logs.read(container.paths.log, selection, ended)

    # attaching ----------------------------------------------------------------------------------------------------------------------

    async def attach(self, reference: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Session:
        """Joins the container's streams: from now on where it runs, from its first byte where it has not started. Close the session."""
        container = self.get(reference)
        is_mute = not stdout and not stderr
        attach = Attach(
            stdin=stdin and container.record.config["OpenStdin"],
            stdout=stdout or is_mute or container.tty,
            stderr=stderr and not container.tty,
        )
        try:
            async with container.lock:
                if container.status is Status.PAUSED:
                    raise Conflict(f"container {container.id} is paused, unpause the container before attach")
                if container.is_up:
                    await self._services.runtime.attach(container.id, None, attach)
                else:
                    container.pending.append(attach)
        except BaseException:
            attach.close()
            raise
        self._services.container_event(container, "attach")
        return Session(attach, is_mute=is_mute)

    def detach(self, reference: str, session: Session) -> None:
        """Closes a session; one whose container never started is forgotten."""
        with contextlib.suppress(NotFound):
            container = self.get(reference)
            if session.attach in container.pending:
                container.pending.remove(session.attach)
        session.close()

    # all at once --------------------------------------------------------------------------------------------------------------------

    async def prune(self, filters: Filters) -> dict[str, Any]:
        """Removes what is stopped: {"ContainersDeleted", "SpaceReclaimed"}."""
        until = filters.one("until")
        bound = parse_moment(until) if until else None
        deleted, space = [], 0
        for container in self._registry:
            is_old = bound is None or container.record.created_ns < bound
            idle = not container.is_up and container.status not in {Status.RESTARTING, Status.STARTING, Status.CREATING}
            if idle and is_old and filters.labels(container.labels) and filters.no_labels(container.labels):
                space += tree_size(str(container.paths.upper))
                await removal.remove(self._services, container)
                deleted.append(container.id)
        self._services.events.publish("container", "prune", "", {"reclaimed": str(space)})
        return {"ContainersDeleted": deleted, "SpaceReclaimed": space}

    def counts(self) -> dict[str, int]:
        """For /info."""
        paused = sum(1 for item in self._registry if item.status is Status.PAUSED)
        running = sum(1 for item in self._registry if item.is_up) - paused
        total = sum(1 for item in self._registry if item.status is not Status.CREATING)
        return {
            "Containers": total,
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": total - running - paused,
        }


async def _before(ended: asyncio.Future[ExitStatus], until_ns: int) -> None:
    """Until the container ends, or nothing that comes is wanted any more."""
    try:
        await asyncio.wait((ended,), timeout=max(0.0, (until_ns - time.time_ns()) / 1e9))
    finally:
        ended.cancel()


def _check_swap(memory: int, swap: int) -> None:
    """Raises InvalidInput, in Docker's words, where new memory alone would pass the limit of memory and swap together."""
    if 0 < swap < memory:
        raise InvalidInput("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
