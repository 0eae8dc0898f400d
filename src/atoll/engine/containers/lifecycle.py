"""Start, stop and end of containers: each act is marked when it begins, and written when it is done.

Acts on one container are ordered by its lock. The end of its main process arrives as an event of the runtime and takes the same lock, so an
exit that overtakes its start is dealt with after it. Who waits for an exit is told once the container's network is gone and its row says
"exited": what they look at next is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal as signals
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson

from atoll import units
from atoll.engine import runtimes
from atoll.engine.containers import bundle, explain, health, layers, mounting, restart
from atoll.engine.containers.log_options import rotation
from atoll.engine.containers.record import Container, Record, Status
from atoll.engine.containers.rootfs import clear_volatile
from atoll.engine.containers.signals import parse_signal
from atoll.engine.services import Services
from atoll.errors import AtollError, Conflict, NotFound
from atoll.runtime import Attach, ExitStatus, KeeperLost, StartFailed

log = logging.getLogger(__name__)

EXIT_UNKNOWN = "the container ended unseen, with its keeper or with the machine: its exit code is not known"
STOP_TIMEOUT_S = 10  # Docker's default grace
WRITE_AGAIN_S = 1.0  # after a row found the disk full
KILL_WAIT_S = 10.0  # a killed process that is still there after this long hangs in the kernel


class NotModified(AtollError):
    """The container is already in the state asked for (304)."""


class Lifecycle:
    def __init__(self, services: Services, remove: Callable[[Container], Awaitable[None]]) -> None:
        self._services = services
        self._remove = remove
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._is_writing_later = False

    def listen(self) -> None:
        """Hear of exits from now on: once it is known what runs."""
        self._services.runtime.on_exit.append(self._on_exit)

    # start --------------------------------------------------------------------------------------------------------------------------

    async def start(self, container: Container, *, by_policy: bool = False) -> None:
        """Raises NotModified where it runs, Conflict, StartFailed and whatever network or mounts raise; the row then says why."""
        if container.is_up:
            raise NotModified(f"container {container.id} is already running")
        if container.restart_task is not None and not by_policy:
            container.restart_task.cancel()
            container.restart_task = None
        async with container.lock:
            if container.is_up:
                raise NotModified(f"container {container.id} is already running")
            self._check_startable(container)
            before = container.record
            container.begin(status=Status.STARTING, error="", stopped_by_user=False)
            container.is_kept = True
            attachments = container.take_pending()
            try:
                await self._start(container, attachments[0] if attachments else None)
            except BaseException as error:
                for attach in attachments:
                    attach.release_keeper_ends()  # its reader sees the end, and closes it
                if isinstance(error, StartFailed):
                    await asyncio.to_thread(explain.add_reason, self._services, container, error)
                code = error.exit_code if isinstance(error, StartFailed) else 128
                status = before.status if before.status is not Status.RESTARTING else Status.EXITED
                finished = time.time_ns() if before.started_ns else 0
                self.settle(container, status=status, exit_code=code, error=str(error), finished_ns=finished, endpoints={}, pid=0)
                if isinstance(error, StartFailed):
                    self._services.container_event(container, "die", exitCode=str(code))
                if container.auto_remove:
                    self._spawn(self._remove(container), f"remove {container.id[:12]}")
                container.exited(container.exit_status())
                raise
            for attach in attachments[1:]:
                with contextlib.suppress(Conflict, NotFound):  # it has ended already: its reader sees the end
                    await self._services.runtime.attach(container.id, None, attach)

    def _check_startable(self, container: Container) -> None:
        if container.removed or container.status in {Status.REMOVING, Status.DEAD}:
            raise Conflict(f"container {container.id} is marked for removal and cannot be started")

    async def _start(self, container: Container, attach: Attach | None) -> None:
        services, record = self._services, container.record
        self._check_ipc(record)
        kinds = bundle.own_namespaces(record.host)
        services.runtime.expect(container.id, kinds)
        sources = mounting.mount_volumes(services, container)
        clear_volatile(container)
        netns, endpoints = await services.networker.connect(container)
        try:
            spec = bundle.make_spec(
                container,
                netns=netns,
                sources=sources,
                layers=lambda image: services.images.snapshots.overlay_lowers(services.images.resolve(image)),
                pid_of=self._pid_of,
                links=services.networker.link_environment(container) if record.host["Links"] else (),
                settings=services.settings,
                trust=services.trust,
            )
            (container.paths.root / "config.json").write_bytes(orjson.dumps(spec))
            image = services.images.resolve(record.image)
            rootfs = layers.overlay(services.images, image, services.init_layer, container.paths.upper, container.paths.work)
            log_max_size, log_max_files = rotation(record.host["LogConfig"])
            if container.is_unsaved:
                await self.let_go(container)  # of the run before
            asyncio.get_running_loop().call_soon(services.foresight.look, kinds)  # when this start is on its way
            pid = await services.runtime.start(
                container.id,
                container.paths.root,
                rootfs=rootfs,
                log=None if record.host["LogConfig"]["Type"] == "none" else container.paths.log,
                log_max_size=log_max_size,
                log_max_files=log_max_files,
                stdin=record.config["OpenStdin"],
                stdin_once=record.config["StdinOnce"],
                attach=attach,
                runtime=runtimes.find(services.settings, record.host["Runtime"]),
            )
        except BaseException:
            await services.networker.disconnect(container)
            mounting.unmount_volumes(services, container)
            raise
        self.settle(
            container, status=Status.RUNNING, pid=pid, started_ns=time.time_ns(), endpoints=endpoints, exit_code=0, oom_killed=False
        )
        mounting.tell_mounted(services, container)
        services.container_event(container, "start")
        health.begin(container, services)

    def _check_ipc(self, record: Record) -> None:
        mode = record.host["IpcMode"]
        if mode.startswith("container:"):
            donor = self._services.registry.get(mode.removeprefix("container:"))
            if donor.record.host["IpcMode"] != "shareable":
                raise Conflict(
                    f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                )

    def _pid_of(self, reference: str) -> int:
        other = self._services.registry.get(reference)
        if not other.is_up:
            raise Conflict(f"cannot join a namespace of a non running container: {other.id}")
        return other.record.pid

    # end ----------------------------------------------------------------------------------------------------------------------------

    def _on_exit(self, status: ExitStatus) -> None:
        container = self._services.registry.find(status.id)
        if status.exec_id is None and container is not None:
            self._spawn(self.ended(container, status), f"exit of {status.id[:12]}")

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        if self._is_closing:
            if asyncio.iscoroutine(work):
                work.close()
            return  # what happens now is found by recovery at the next start

        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("%s failed", name)

        task = asyncio.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self, container: Container, status: ExitStatus) -> None:
        """What follows the end of the main process: row, network, event, who waits; then restart, removal or rest."""
        services = self._services
        async with container.lock:
            if not container.is_up or status.finished_ns == container.record.finished_ns:
                return  # recovery was there first; the next run may be under way already
            health.end(container)
            again = self._settle_end(container, status)
            try:
                await services.networker.disconnect(container)
                mounting.unmount_volumes(services, container)
                mounting.tell_unmounted(services, container)
            except (AtollError, OSError):
                log.exception("container %s has ended, but not all of it could be taken down", container.id[:12])
            container.exec_ids.clear()
            if status.oom_killed:
                services.container_event(container, "oom")
            seconds = max(0, container.record.finished_ns - container.record.started_ns) // units.NS
            services.container_event(container, "die", exitCode=str(status.code), execDuration=str(seconds))
            if again:
                container.restart_delay_s = restart.next_delay(container.record, container.restart_delay_s)
                container.restart_task = asyncio.create_task(self._restart_later(container), name=f"restart {container.id[:12]}")
            container.exited(status)
            if not container.is_unsaved:  # else the keeper is the one to know how it ended, should we die
                await self.let_go(container)
        if not again and container.auto_remove and not container.is_restarting:
            await self._remove(container)

    def _settle_end(self, container: Container, status: ExitStatus) -> bool:
        """The row of its end; whether the policy starts it again, which is counted in the same write."""
        changes: dict[str, Any] = {
            "pid": 0,
            "exit_code": status.code,
            "error": EXIT_UNKNOWN if status.is_unknown else container.record.error,
            "oom_killed": status.oom_killed,
            "finished_ns": status.finished_ns,
            "endpoints": {},
        }
        again = restart.wants_restart(replace(container.record, **changes))
        ended = Status.RESTARTING if again else Status.EXITED
        self.settle(container, status=ended, **changes, restart_count=container.record.restart_count + again)
        return again

    async def let_go(self, container: Container) -> None:
        """Have the keeper forget the run that has ended."""
        with contextlib.suppress(NotFound, KeeperLost):
            await self._services.runtime.delete(container.id)  # cgroups; nobody waits for them
            container.is_kept = False

    def settle(self, container: Container, **changes: Any) -> None:
        """Of what has happened: a row that finds no room on the disk is written as soon as there is."""
        if not container.settle(**changes) and not self._is_writing_later:
            self._is_writing_later = True
            self._spawn(self._write_later(), "rows that the disk had no room for")

    async def _write_later(self) -> None:
        try:
            while unsaved := [container for container in self._services.registry if container.is_unsaved]:
                await asyncio.sleep(WRITE_AGAIN_S)
                for container in unsaved:
                    if container.is_unsaved and not container.removed and container.settle():
                        log.warning("container %s: its row is written now", container.id[:12])
                        if not container.is_up:
                            await self.let_go(container)
        finally:
            self._is_writing_later = False

    async def _restart_later(self, container: Container) -> None:
        try:
            await asyncio.sleep(container.restart_delay_s)
            await self.start(container, by_policy=True)
        except NotModified:
            pass  # the user was quicker
        except AtollError as error:
            log.warning("container %s does not start again: %s", container.id[:12], error)
        except Exception:
            log.exception("container %s does not start again", container.id[:12])
        finally:
            container.restart_task = None

    # signals ------------------------------------------------------------------------------------------------------------------------

    async def stop(self, container: Container, timeout: int | None = None, signal: str | None = None) -> None:  # noqa: ASYNC109
        """The stop signal, a time of grace in seconds (-1 for ever), then SIGKILL. Raises NotModified where it does not run."""
        if self._cancel_restart(container):
            return
        async with container.lock:
            pass  # a start that is under way comes first, or an end
        if self._cancel_restart(container):
            return
        if not container.is_up:
            raise NotModified(f"container {container.id} is not running")
        config = container.record.config
        number = parse_signal(signal or config["StopSignal"] or "SIGTERM")
        grace = timeout if timeout is not None else config["StopTimeout"] if config["StopTimeout"] is not None else STOP_TIMEOUT_S
        container.save(stopped_by_user=True)
        ended = self.next_exit(container)
        if grace != 0:
            await self._signal(container, number)
        if container.status is Status.PAUSED:
            await self._services.runtime.resume(container.id)
        if grace == 0 or not await _within(ended, grace if grace >= 0 else None):
            await self._signal(container, signals.SIGKILL)
        if not await _within(ended, KILL_WAIT_S):
            raise AtollError(f"container {container.id} does not end after SIGKILL: a process of it hangs in the kernel")
        self._services.container_event(container, "stop")

    async def kill(self, container: Container, signal: str = "KILL") -> None:
        """Raises Conflict where it does not run."""
        number = parse_signal(signal)
        if self._cancel_restart(container):
            return
        if not container.is_up:
            raise Conflict(f"cannot kill container: {container.name}: container {container.id} is not running")
        stop_signal = container.record.config["StopSignal"] or "SIGTERM"
        if number in {signals.SIGKILL, parse_signal(stop_signal)}:
            container.save(stopped_by_user=True)
        ended = self.next_exit(container)
        await self._signal(container, number)
        if number == signals.SIGKILL:
            if container.status is Status.PAUSED:
                with contextlib.suppress(Conflict, NotFound):
                    await self._services.runtime.resume(container.id)
            await _within(ended, KILL_WAIT_S)

    def _cancel_restart(self, container: Container) -> bool:
        if container.restart_task is None or container.status is not Status.RESTARTING:
            return False
        container.restart_task.cancel()
        container.restart_task = None
        container.save(status=Status.EXITED, stopped_by_user=True)
        self._services.container_event(container, "stop")
        container.exited(container.exit_status())
        return True

    async def _signal(self, container: Container, number: int) -> None:
        with contextlib.suppress(Conflict, NotFound):  # it has just ended by itself
            await self._services.runtime.signal(container.id, number)
        self._services.container_event(container, "kill", signal=str(number))

    async def restart(self, container: Container, timeout: int | None = None, signal: str | None = None) -> None:  # noqa: ASYNC109
        container.is_restarting = True  # keeps --rm from taking it away in between
        try:
            with contextlib.suppress(NotModified):
                await self.stop(container, timeout, signal)
            await self.start(container)
        finally:
            container.is_restarting = False
        self._services.container_event(container, "restart")

    async def pause(self, container: Container) -> None:
        async with container.lock:
            if container.status is Status.PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            if not container.is_up:
                raise Conflict(f"Container {container.id} is not running")
            await self._services.runtime.pause(container.id)
            container.save(status=Status.PAUSED)
        self._services.container_event(container, "pause")

    async def resume(self, container: Container) -> None:
        async with container.lock:
            if container.status is not Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            await self._services.runtime.resume(container.id)
            container.save(status=Status.RUNNING)
        self._services.container_event(container, "unpause")

    def next_exit(self, container: Container) -> asyncio.Future[ExitStatus]:
        future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        container.exits.append(future)
        return future

    async def close(self) -> None:
        """Leaves containers running; what is under way is given up, and recovery will find it."""
        self._is_closing = True
        for container in self._services.registry:
            health.end(container)
            if container.restart_task is not None:
                container.restart_task.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _within(future: asyncio.Future[ExitStatus], seconds: float | None) -> bool:
    done, _ = await asyncio.wait((future,), timeout=seconds)
    return bool(done)
