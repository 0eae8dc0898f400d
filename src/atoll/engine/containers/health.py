"""Health checks: a command run in the container every so often, and what its exits say.

Docker's rules: "starting" until the first success, or until `Retries` failures in a row outside the start period make it "unhealthy"; one
success makes it "healthy". The last five results are kept, their output cut at 4 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import Any

import orjson

from atoll import units
from atoll.engine.containers.record import Container
from atoll.engine.names import new_id
from atoll.engine.services import Services
from atoll.engine.streams import Session
from atoll.errors import AtollError, Conflict, NotFound
from atoll.runtime import Attach, KeeperLost
from atoll.runtime.spec import exec_process

INTERVAL_NS = 30 * units.NS
TIMEOUT_NS = 30 * units.NS
START_INTERVAL_NS = 5 * units.NS
RETRIES = 3
KEPT = 5  # results
OUTPUT_MAX = 4096  # bytes of each
FAILED_EXIT = -1  # the check could not be run, or took too long

log = logging.getLogger(__name__)


class Probe:
    """The check of one running container."""

    def __init__(self, container: Container, services: Services) -> None:
        self._container = container
        self._services = services
        check = container.record.config["Healthcheck"]
        self._test: list[str] = check["Test"]
        self._interval = (check.get("Interval") or INTERVAL_NS) / units.NS
        self._timeout = (check.get("Timeout") or TIMEOUT_NS) / units.NS
        self._start_period = (check.get("StartPeriod") or 0) / units.NS
        self._start_interval = (check.get("StartInterval") or START_INTERVAL_NS) / units.NS
        self._retries = check.get("Retries") or RETRIES
        self.status = "starting"
        self.streak = 0
        self.results: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._began = time.monotonic()
        self.task: asyncio.Task[None] | None = None

    @property
    def shown(self) -> str:
        """As in `docker ps`."""
        return "health: starting" if self.status == "starting" else self.status

    def wire(self) -> dict[str, Any]:
        return {"Status": self.status, "FailingStreak": self.streak, "Log": list(self.results)}

    @property
    def _is_starting(self) -> bool:
        return self.status == "starting" and time.monotonic() - self._began < self._start_period

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._start_interval if self._is_starting else self._interval)
            begun = time.time_ns()
            result = await self._check()
            if result is not None:
                self.record(*result, begun, time.time_ns())

    def record(self, code: int, output: bytes, begun_ns: int, ended_ns: int) -> None:
        """Takes one result into account."""
        self.results.append(
            {
                "Start": units.timestamp(begun_ns),
                "End": units.timestamp(ended_ns),
                "ExitCode": code,
                "Output": output[:OUTPUT_MAX].decode(errors="replace"),
            }
        )
        before = self.status
        if code == 0:
            self.status, self.streak = "healthy", 0
        elif not self._is_starting:
            self.streak += 1
            if self.streak >= self._retries:
                self.status = "unhealthy"
        if self.status != before:
            self._services.container_event(self._container, f"health_status: {self.status}")

    async def _check(self) -> tuple[int, bytes] | None:
        """Exit code and output; None where the keeper was replaced in the middle, which says nothing of the container."""
        kind, *words = self._test
        if kind == "CMD-SHELL":
            words = [*(self._container.record.config["Shell"] or ["/bin/sh", "-c"]), *words]
        spec = orjson.loads((self._container.paths.root / "config.json").read_bytes())
        exec_id = new_id()
        runtime, container_id = self._services.runtime, self._container.id
        session = Session(Attach(stdin=False))
        output = bytearray()
        try:
            async with asyncio.timeout(self._timeout):
                await runtime.exec(container_id, exec_id, exec_process(spec, args=words), attach=session.attach)
                async for _, data in session.output():
                    output += data[: OUTPUT_MAX - len(output)]
                status = await runtime.wait(container_id, exec_id)
            return status.code, bytes(output)
        except TimeoutError:
            with contextlib.suppress(Conflict, NotFound):
                await runtime.signal(container_id, 9, exec_id=exec_id)
            return FAILED_EXIT, b"Health check exceeded timeout (%gs)" % self._timeout
        except AtollError as error:
            if session.attach.is_lost or isinstance(error, KeeperLost):
                return None
            return FAILED_EXIT, str(error).encode()
        finally:
            session.close()


def begin(container: Container, services: Services) -> None:
    """Starts probing a container that has just started, if it has a check."""
    check = container.record.config["Healthcheck"] or {}
    test = check.get("Test") or ["NONE"]
    container.health = None
    if test[0] == "NONE" or len(test) < 2:
        return
    probe = Probe(container, services)
    container.health = probe
    probe.task = asyncio.create_task(_run(probe, container), name=f"health of {container.id[:12]}")


async def _run(probe: Probe, container: Container) -> None:
    try:
        await probe.run()
    except Exception:
        log.exception("the health check of container %s broke off", container.id[:12])


def end(container: Container) -> None:
    """Stops probing; the last state stays visible."""
    if container.health is not None and container.health.task is not None:
        container.health.task.cancel()
        container.health.task = None
