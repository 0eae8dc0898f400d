"""`docker exec`: further processes in a running container.

An exec lives in memory alone, as in Docker: after the daemon's restart its process goes on, unseen. Its configuration is checked when it is
made, the program is started by `start`, once; the exit code is there for `inspect` until the container goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from atoll.engine.containers.config import Table, read
from atoll.engine.containers.record import Container, Status
from atoll.engine.names import new_id
from atoll.engine.services import Services
from atoll.engine.streams import Session, parse_keys
from atoll.errors import Conflict, InvalidInput, NotFound
from atoll.runtime import Attach, ExitStatus, RuntimeState, StartFailed
from atoll.runtime.spec import exec_process

ORPHAN_GRACE_S = 1.0  # for the exits of execs to arrive after that of their container
KILLED = 137

FIELDS: Table = {
    "AttachStdin": ("truth", False),
    "AttachStdout": ("truth", False),
    "AttachStderr": ("truth", False),
    "ConsoleSize": ("any", None),
    "DetachKeys": ("text", ""),
    "Tty": ("truth", False),
    "Env": ("texts", []),
    "Cmd": ("words", []),
    "Privileged": ("truth", False),
    "User": ("text", ""),
    "WorkingDir": ("text", ""),
}


@dataclass(slots=True)
class Exec:
    id: str
    container: Container
    config: dict[str, Any]
    pid: int = 0
    is_started: bool = False
    exit_code: int | None = None
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_running(self) -> bool:
        return self.is_started and self.exit_code is None

    @property
    def tty(self) -> bool:
        return bool(self.config["Tty"])

    def finish(self, code: int) -> None:
        self.exit_code = code
        if not self.ended.done():
            self.ended.set_result(code)


class Execs:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._execs: dict[str, Exec] = {}
        services.runtime.on_exit.append(self._on_exit)

    def get(self, exec_id: str) -> Exec:
        """Raises NotFound."""
        found = self._execs.get(exec_id)
        if found is None or found.container.removed:
            self._execs.pop(exec_id, None)
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    async def create(self, reference: str, body: Mapping[str, Any]) -> str:
        """The new exec's id. Raises NotFound, Conflict (not running, paused), InvalidInput."""
        container = self._services.registry.get(reference)
        config = read(body, FIELDS)
        if not config["Cmd"]:
            raise InvalidInput("No exec command specified")
        if config["DetachKeys"]:
            parse_keys(config["DetachKeys"])
        _check_running(container)
        self._forget_old()
        made = Exec(new_id(), container, config)
        self._execs[made.id] = made
        container.exec_ids.append(made.id)
        self.event(made, f"exec_create: {' '.join(config['Cmd'])}")
        return made.id

    def _forget_old(self) -> None:
        """Those of removed containers, and the ended ones of all but the latest."""
        for identifier, item in list(self._execs.items()):
            if item.container.removed or (item.exit_code is not None and len(self._execs) > 1000):
                del self._execs[identifier]

    def check_startable(self, item: Exec) -> None:
        """Raises Conflict where the program was started before, or its container does not run."""
        if item.is_started:
            how = "has already run" if item.exit_code is not None else "is already running"
            raise Conflict(f"exec command {item.id} {how}")
        _check_running(item.container)

    async def start(self, exec_id: str, *, attach: bool = True, console: tuple[int, int] | None = None) -> Session | None:
        """Starts the program; a session on its streams, to be closed by the caller, or None where it runs detached.

        Raises Conflict where it was started before, StartFailed (the exit code is then in `inspect`).
        """
        item = self.get(exec_id)
        self.check_startable(item)
        item.is_started = True
        container, config, terminal = item.container, item.config, item.tty
        spec = orjson.loads((container.paths.root / "config.json").read_bytes())
        process = exec_process(
            spec,
            args=config["Cmd"],
            env=[*_terminal_type(container, terminal=terminal), *config["Env"]],
            cwd=config["WorkingDir"] or None,
            user=config["User"] or None,
            terminal=terminal,
            console_size=console or _console(config["ConsoleSize"]),
            privileged=config["Privileged"] or container.record.host["Privileged"],
        )
        streams = {
            "stdin": config["AttachStdin"],
            "stdout": config["AttachStdout"] or terminal,
            "stderr": config["AttachStderr"] and not terminal,
        }
        ends = Attach(**streams) if attach else None
        self.event(item, f"exec_start: {' '.join(config['Cmd'])}")  # before its end can be told
        try:
            item.pid = await self._services.runtime.exec(
                container.id, item.id, process, stdin=attach and config["AttachStdin"], attach=ends
            )
        except BaseException as error:
            if ends is not None:
                ends.close()
            item.finish(error.exit_code if isinstance(error, StartFailed) else 126)
            raise
        return Session(ends) if ends is not None else None

    def event(self, item: Exec, action: str, **attributes: str) -> None:
        self._services.container_event(item.container, action, execID=item.id, **attributes)

    def _on_exit(self, status: ExitStatus) -> None:
        if status.exec_id is None:
            left = [item for item in self._execs.values() if item.container.id == status.id and item.is_running]
            if left:
                asyncio.get_running_loop().call_later(ORPHAN_GRACE_S, _finish, left)
            return
        item = self._execs.get(status.exec_id)
        if item is not None:
            item.finish(status.code)
            with contextlib.suppress(ValueError):
                item.container.exec_ids.remove(item.id)
            self.event(item, "exec_die", exitCode=str(status.code))

    def on_other_keeper(self, states: Mapping[str, RuntimeState]) -> None:
        """A keeper has died: the one that follows has taken over what nobody was attached to, and has ended the rest."""
        for item in list(self._execs.values()):
            state = states.get(item.container.id)
            if item.is_running and item.pid and (state is None or item.id not in state.execs):
                self._on_exit(ExitStatus(item.container.id, item.id, KILLED, None, oom_killed=False, finished_ns=time.time_ns()))

    async def resize(self, exec_id: str, width: int, height: int) -> None:
        item = self.get(exec_id)
        if not item.is_running:
            raise Conflict(f"exec process {exec_id} is not running")
        await self._services.runtime.resize(item.container.id, item.id, width, height)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        item = self.get(exec_id)
        config = item.config
        return {
            "ID": item.id,
            "Running": item.is_running,
            "ExitCode": item.exit_code,
            "ProcessConfig": {
                "tty": config["Tty"],
                "entrypoint": config["Cmd"][0],
                "arguments": config["Cmd"][1:],
                "privileged": config["Privileged"],
                "user": config["User"],
            },
            "OpenStdin": config["AttachStdin"],
            "OpenStderr": config["AttachStderr"],
            "OpenStdout": config["AttachStdout"],
            "CanRemove": item.exit_code is not None,
            "ContainerID": item.container.id,
            "DetachKeys": config["DetachKeys"],
            "Pid": item.pid,
        }


def _finish(items: list[Exec]) -> None:
    for item in items:
        if item.is_running:
            item.finish(KILLED)


def _check_running(container: Container) -> None:
    if container.status is Status.PAUSED:
        raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
    if container.status is Status.RESTARTING:
        raise Conflict(f"Container {container.name} is restarting, wait until the container is running")
    if not container.is_up:
        raise Conflict(f"container {container.id} is not running")


def _terminal_type(container: Container, *, terminal: bool) -> list[str]:
    """The exec's terminal decides, not the container's; what the container was given stays."""
    if any(item.startswith("TERM=") for item in container.record.config["Env"] or ()):
        return []
    return ["TERM=xterm" if terminal else "TERM"]


def _console(size: Any) -> tuple[int, int] | None:
    match size:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
        case _:
            return None
