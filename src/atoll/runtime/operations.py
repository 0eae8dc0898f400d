"""What clients may ask of the keeper, and what happens when a process ends.

Each operation gets the request, its descriptors and a `reply` to call now or later. The order that clients rely on: the answer to a start
comes before the event of its exit; an exit is on disk before it is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from atoll.errors import AtollError, Conflict, InvalidInput, NotFound, SystemFailure
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import init, launch, protocol
from atoll.runtime.constants import EXIT_FILE
from atoll.runtime.container import Container, Process, Reply
from atoll.runtime.errors import StartFailed
from atoll.runtime.loop import READ, Loop

Request = Mapping[str, Any]


class Operations:
    def __init__(self, loop: Loop, layout: Layout, instance_id: str, cache: str, broadcast: Callable[[dict[str, Any]], None]) -> None:
        self.containers: dict[str, Container] = {}
        self._loop = loop
        self._layout = layout
        self._instance_id = instance_id
        self._broadcast = broadcast
        self._launcher = launch.Launcher(loop, cache)
        self._by_pid: dict[int, Process] = {}
        self._unborn = 0  # execs whose pid is not known yet
        self._strangers: dict[int, int] = {}  # deaths seen while some were unborn
        self._helpers: dict[int, Callable[[], None]] = {}  # what follows the end of a child that is nobody's process
        self._on_empty: Callable[[], None] | None = None

    def handle(self, message: Request, fds: list[int], reply: Reply) -> None:
        """Answer with what was asked for or with an error object; never raises."""
        operation = getattr(self, f"op_{str(message.get('op')).replace('-', '_')}", None)
        names = message.get("attach") or ()
        ends = dict(zip(names, fds, strict=False))  # an operation pops what it keeps
        unused = fds[len(names) :]
        try:
            if operation is None:
                raise InvalidInput(f"the keeper does not know the operation {message.get('op')}")
            answer = operation(message, ends, reply)
            if answer is not None:
                reply(answer, None)
        except Exception as error:
            reply(None, describe(error))
        finally:
            protocol.close_all([*unused, *ends.values()])

    def op_hello(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        return {"version": protocol.VERSION, "pid": os.getpid(), "cgroups": self._layout.mode}

    def op_start(self, request: Request, ends: dict[str, int], reply: Reply) -> None:
        name = request["container"]
        if name in self.containers:
            raise Conflict(f"the keeper already has a container {name}")
        bundle = request["bundle"]
        spec = launch.read_spec(bundle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(bundle, EXIT_FILE))
        cgroup = Cgroup(self._layout, launch.cgroup_path(self._instance_id, name, spec))
        container = Container(name, bundle, cgroup, launch.open_log(request))
        if request.get("runtime"):
            container.runtime = launch.another_runtime(request["runtime"], container)
        elif spec.get("hooks"):
            container.poststop = launch.poststop(spec, container)
        try:
            container.main = self._launcher.start(container, spec, request, reply)
        except SystemFailure as error:
            self._abandon(container)
            raise StartFailed(str(error)) from error
        except BaseException:
            self._abandon(container)
            raise
        self.containers[name] = container
        if container.main.pid:
            self._by_pid[container.main.pid] = container.main
        else:
            self._unborn += 1
        self._follow(container.main, ends)

    def op_exec(self, request: Request, ends: dict[str, int], reply: Reply) -> None:
        container = self._running(request)
        exec_id, process = request["exec"], request["process"]
        if container.paused:
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if exec_id in container.execs:
            raise Conflict(f"exec {exec_id} is running already")
        launch.check_process(process)
        started = self._launcher.exec(container, exec_id, process, reply, stdin=bool(request.get("stdin")))
        container.execs[exec_id] = started
        self._unborn += 1
        self._follow(started, ends)

    def op_attach(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        self._attach(self._process(request), ends)
        return {}

    def op_resize(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        process = self._process(request)
        if process.terminal < 0:
            raise InvalidInput(f"container {process.container.id}: the process has no terminal to resize")
        launch.resize(process.terminal, int(request["height"]), int(request["width"]))
        return {}

    def op_signal(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        process = self._process(request)
        number = int(request["signal"])
        group = process.container.cgroup
        if request.get("all"):
            for pid in group.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        elif process.pid:
            os.kill(process.pid, number)  # ours and not reaped yet: the number cannot mean another process
        if number == signal.SIGKILL and process.container.paused:
            group.thaw()  # the frozen do not die
            process.container.paused = False
        return {}

    def op_pause(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        container = self._running(request)
        container.cgroup.freeze()
        container.paused = True
        return {}

    def op_resume(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        container = self._running(request)
        container.cgroup.thaw()
        container.paused = False
        return {}

    def op_update(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        self._running(request).cgroup.update(request["resources"])
        return {}

    def op_pids(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        return {"pids": self._running(request).cgroup.pids()}

    def op_stats(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        return self._running(request).cgroup.stats()

    def op_wait(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any] | None:
        container = self._container(request)
        exec_id = request.get("exec")
        process = container.main if exec_id is None else container.execs.get(exec_id)
        if process is None:
            ending = container.endings.get(exec_id or "")
            if ending is None:
                raise NotFound(f"No such exec instance: {exec_id}")
            return ending
        if process.ending is None:
            process.waiters.append(reply)
        return process.ending

    def op_delete(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any] | None:
        container = self._container(request)
        if container.state != "exited":
            raise Conflict(f"container {container.id} is running: stop it before removing it")
        if container.runtime is not None or container.poststop is not None:
            self._helpers[self._launcher.take_leave(container)] = lambda: self._delete(container, reply)
            return None
        self._delete(container, None)
        return {}

    def _delete(self, container: Container, reply: Reply | None) -> None:
        container.cgroup.remove()
        self.containers.pop(container.id, None)
        if reply is not None:
            reply({}, None)

    def op_list(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        return {"containers": [container.describe() for container in self.containers.values()]}

    def kill_all(self, on_done: Callable[[], None]) -> None:
        """End every container; `on_done` when the last has ended."""
        self._on_empty = on_done
        for container in self.containers.values():
            if container.state != "exited":
                container.cgroup.kill()
        self._check_empty()

    def on_death(self, pid: int, status: int) -> None:
        """A child was reaped. Unknown ones are orphans of containers, and the forerunners of execs."""
        helper = self._helpers.pop(pid, None)
        if helper is not None:
            helper()
            return
        process = self._by_pid.pop(pid, None)
        if process is None:
            if self._unborn:
                self._strangers[pid] = status
            return
        if process.status is not None:
            self._read_status(process)  # its last words, and the answer to the start, come first
        if process.status is not None and process.is_attended:
            process.early_status = status
            return
        if process.status is not None:
            self._end_start(process)
        if process.started:
            self._finish(process, status)

    def _follow(self, process: Process, ends: dict[str, int]) -> None:
        """Attach whoever asked to be from the first byte on, then listen to the child."""
        assert process.status is not None
        self._loop.add(process.status.fileno(), READ, lambda _: self._read_status(process))
        if ends and process.outputs:
            self._attach(process, ends)
        elif ends:
            process.waiting_ends = dict(ends)  # until there is a terminal
            ends.clear()

    def _attach(self, process: Process, ends: dict[str, int]) -> None:
        """Takes the descriptors that it uses out of `ends`."""
        if "stdin" in ends and process.inputs is not None:
            process.inputs.attach(ends.pop("stdin"))
        for name in ("stdout", "stderr"):
            if name in ends and name in process.outputs:
                process.outputs[name].attach(ends.pop(name))

    def _read_status(self, process: Process) -> None:
        while process.status is not None:
            try:
                received = protocol.receive(process.status)
            except BlockingIOError:
                return
            except (OSError, protocol.ProtocolError):
                received = None
            if received is None:
                self._end_start(process)
                return
            message, fds = received
            if "pid" in message:
                self._born(process, int(message["pid"]))
            elif "terminal" in message and fds:
                self._launcher.take_terminal(process, fds.pop())
                self._attach(process, process.waiting_ends)
                protocol.close_all(list(process.waiting_ends.values()))
                process.waiting_ends = {}
            elif "ready" in message:
                process.ready = True
            elif "error" in message:
                process.error = message["error"]
            protocol.close_all(fds)

    def _born(self, process: Process, pid: int) -> None:
        """The pid of an exec is known only now; it may have ended meanwhile."""
        process.pid = pid
        self._unborn -= 1
        if pid in self._strangers:
            process.early_status = self._strangers.pop(pid)
        else:
            self._by_pid[pid] = process
        if not self._unborn:
            self._strangers.clear()

    def _end_start(self, process: Process) -> None:
        """The status socket has closed: the program runs, or the child has failed."""
        assert process.status is not None
        self._loop.remove(process.status.fileno())
        process.status.close()
        process.status = None
        reply, process.reply = process.reply, None
        container = process.container
        if not process.pid:
            self._unborn -= 1
        error = process.error
        if error is None and not process.ready:
            error = {
                "kind": "start-failed",
                "message": "the container's init was killed before it could start the program: is its memory limit too low?",
            }
        if error is None:
            process.started = True
            if process.exec_id is None:
                container.started_ns = time.time_ns()
            if reply is not None:
                reply({"pid": process.pid}, None)
            if process.early_status is not None:
                self._finish(process, process.early_status)
            return
        process.close_streams()
        protocol.close_all(list(process.waiting_ends.values()))
        process.waiting_ends = {}
        if process.exec_id is None:
            self.containers.pop(container.id, None)
            self._abandon(container)
            self._check_empty()
        else:
            container.execs.pop(process.exec_id, None)
        if reply is not None:
            reply(None, error)

    def _abandon(self, container: Container) -> None:
        """A container that never was: nothing of it stays."""
        if container.log is not None:
            container.log.close()
        container.cgroup.kill()
        with contextlib.suppress(SystemFailure):
            container.cgroup.remove()

    def _finish(self, process: Process, status: int) -> None:
        """A process that was started has ended."""
        container = process.container
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        ending = {
            "id": container.id,
            "exec_id": process.exec_id,
            "code": 128 + number if number is not None else os.WEXITSTATUS(status),
            "signal": number,
            "oom_killed": container.cgroup.oom_kills() > 0,
            "finished_ns": time.time_ns(),
        }
        if process.exec_id is None:
            if not container.has_own_pids:
                container.cgroup.kill()  # with a pid namespace of its own the kernel has done so
            process.close_streams()
            if container.log is not None:
                container.log.close()
            container.paused = False
            self._save(container, ending)
            with contextlib.suppress(SystemFailure):  # an exec may still be dying: `delete` removes it then
                container.cgroup.remove()
        else:
            process.close_streams()
            container.execs.pop(process.exec_id, None)
            container.remember(process.exec_id, ending)
        process.ending = ending
        self._broadcast({"event": "exit", **ending})
        for reply in process.waiters:
            reply(ending, None)
        process.waiters = []
        self._check_empty()

    def _save(self, container: Container, ending: dict[str, Any]) -> None:
        """For whoever comes after this keeper. A rename, so that the file is there whole or not at all."""
        path = os.path.join(container.bundle, EXIT_FILE)
        try:
            with open(f"{path}.new", "w", encoding="ascii") as output:
                json.dump(ending, output)
            os.replace(f"{path}.new", path)
        except OSError:
            return  # the bundle is gone or the disk full; those who ask the keeper still learn it

    def _check_empty(self) -> None:
        if self._on_empty is not None and all(container.state == "exited" for container in self.containers.values()):
            self._on_empty()

    def _container(self, request: Request) -> Container:
        container = self.containers.get(request["container"])
        if container is None:
            raise NotFound(f"No such container: {request['container']}")
        return container

    def _running(self, request: Request) -> Container:
        container = self._container(request)
        if container.state == "exited":
            raise Conflict(f"container {container.id} is not running")
        return container

    def _process(self, request: Request) -> Process:
        """The main process or the exec the request names. Raises NotFound, Conflict (it has ended)."""
        exec_id = request.get("exec")
        if exec_id is None:
            main = self._running(request).main
            assert main is not None
            return main
        container = self._container(request)
        if exec_id in container.endings:
            raise Conflict(f"exec {exec_id} has ended")
        process = container.execs.get(exec_id)
        if process is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return process


def describe(error: Exception) -> dict[str, Any]:
    if isinstance(error, Conflict):
        return {"kind": "conflict", "message": str(error)}
    if isinstance(error, NotFound):
        return {"kind": "not-found", "message": str(error)}
    if isinstance(error, SystemFailure):
        return {"kind": "system", "message": str(error), "what": error.what, "errno": error.errno}
    if isinstance(error, AtollError | OSError):
        return init.describe(error)
    return {"kind": "start-failed", "message": f"the keeper failed: {type(error).__name__}: {error}"}
