"""What clients may ask of the keeper.

Each operation gets the request, its descriptors and a `reply` to call now or later. It never waits: what takes its time is answered when it
is done (see `life` and `groups`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Any

from atoll.errors import AtollError, Conflict, InvalidInput, NotFound, SystemFailure
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import init, launch, protocol
from atoll.runtime.bundle import check_process, namespaces_of, read_spec
from atoll.runtime.container import Container, Process, Reply
from atoll.runtime.errors import StartFailed
from atoll.runtime.journal import Journal
from atoll.runtime.life import Life
from atoll.runtime.loop import Loop
from atoll.runtime.spares import Spare, Spares

Request = Mapping[str, Any]
KEPT = ("container", "bundle", "log", "stdin_once", "attempt", "runtime")  # of a start's request, for the next keeper


class Operations:
    def __init__(self, loop: Loop, layout: Layout, instance_id: str, launcher: launch.Launcher, journal: Journal, life: Life) -> None:
        self.life = life
        self.spares = Spares(loop, life.groups, launcher.plan_ahead)
        self._layout = layout
        self._instance_id = instance_id
        self._journal = journal
        self._launcher = launcher

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

    def op_expect(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        """A start of this container, which will want these namespaces, is near."""
        name = request["container"]
        cgroup = Cgroup(self._layout, launch.cgroup_path(self._instance_id, name, None))
        if name not in self.life.containers and not self.life.groups.is_ending(cgroup.path):
            self.spares.add(name, cgroup, namespaces_of(request["namespaces"])[0])
        return {}

    def op_start(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any] | None:
        name = request["container"]
        if name in self.life.containers:
            return self._start_again(self.life.containers[name], request, ends, reply)
        spare = self.spares.take(name)
        try:
            if spare is not None:
                spare.read(request["bundle"])
            return self._start(name, request, ends, reply, spare)
        except BaseException:
            if spare is not None:
                self.spares.end(spare)
            raise

    def _start(self, name: str, request: Request, ends: dict[str, int], reply: Reply, spare: Spare | None) -> dict[str, Any] | None:
        bundle = request["bundle"]
        spec = read_spec(bundle)
        path = launch.cgroup_path(self._instance_id, name, spec["linux"].get("cgroupsPath"))
        if spare is not None and not launch.suits(spare, path, spec, request):
            self.spares.end(spare)
            spare = None
        held = dict(ends)
        if self.life.groups.after(path, lambda: self.handle({**request, "attach": list(held)}, list(held.values()), reply)):
            ends.clear()  # what a dead keeper has left there has still to end
            return None
        if self.life.distant.is_distant(path):
            self._claim(path)
        self.life.exit_files.discard(bundle)
        container = self.make(request, spec, path)
        try:
            container.main = self._launcher.start(container, spec, request, reply, lambda started: self._keep(started, request), spare)
        except BaseException as error:
            self.life.abandon(container)
            if isinstance(error, SystemFailure):
                raise StartFailed(str(error)) from error
            raise
        self.life.containers[name] = container
        self.life.take_up(container.main)
        self.life.follow(container.main, ends)
        return None

    def _keep(self, started: Process, request: Request) -> None:
        """Raises OSError."""
        container = started.container
        asked = {name: request[name] for name in KEPT if name in request}
        started.keep({"request": asked, "cgroup": container.cgroup.path, "own_pids": container.has_own_pids})
        if container.log is not None and started.record is not None:
            container.log.keep_in(started.record)

    def _claim(self, path: str) -> None:
        """A group outside the instance's own, for a container: it is killed with all that is in it. Raises Conflict."""
        if Cgroup(self._layout, path).pids():
            raise Conflict(f"cgroup {path} has processes of others in it: give the container a group of its own")
        self.life.distant.keep([path, *(container.cgroup.path for container in self.life.containers.values())])

    def make(self, request: Request, spec: Mapping[str, Any], path: str) -> Container:
        """A container without processes, as a start asks for it. Raises SystemFailure."""
        cgroup = Cgroup(self._layout, path)
        container = Container(request["container"], request["bundle"], cgroup, launch.open_log(request, self._journal))
        container.attempt = request.get("attempt", "")
        if request.get("runtime"):
            container.runtime = launch.another_runtime(request["runtime"], container)
        elif spec.get("hooks"):
            container.poststop = launch.poststop(spec, container)
        return container

    def _start_again(self, container: Container, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any] | None:
        """The keeper that was asked first died before it could answer. Raises Conflict where this is another start."""
        main = container.main
        if main is None or not container.attempt or request.get("attempt") != container.attempt:
            raise Conflict(f"the keeper already has a container {container.id}")
        if main.status is not None:
            main.reply = reply
            self.life.follow_on(main, ends)
            return None
        self.life.attach(main, ends)
        reply({"pid": main.pid}, None)
        if main.ending is not None:
            self.life.broadcast({"event": "exit", **main.ending})
        return None

    def op_exec(self, request: Request, ends: dict[str, int], reply: Reply) -> None:
        container = self._running(request)
        exec_id, process = request["exec"], request["process"]
        if container.paused:
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if exec_id in container.execs:
            raise Conflict(f"exec {exec_id} is running already")
        check_process(process)
        started = self._launcher.exec(container, exec_id, process, reply, stdin=bool(request.get("stdin")))
        container.execs[exec_id] = started
        self.life.take_up(started)
        started.keep({"container": container.id, "exec": exec_id, "attached": bool(ends)})
        self.life.follow(started, ends)

    def op_attach(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        self.life.attach(self._process(request), ends)
        return {}

    def op_resize(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        process = self._process(request)
        if process.terminal < 0:
            raise InvalidInput(f"container {process.container.id}: the process has no terminal to resize")
        launch.resize(process.terminal, int(request["height"]), int(request["width"]))
        return {}

    def op_signal(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any] | None:
        process = self._process(request)
        number = int(request["signal"])
        group = process.container.cgroup
        if request.get("all"):
            for pid in group.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        elif process.container.runtime is not None and process.exec_id is None and number != signal.SIGKILL:
            self.life.helpers[self._launcher.send_signal(process.container, number)] = lambda: reply({}, None)
            return None
        else:
            process.send_signal(number)
        if number == signal.SIGKILL and process.container.paused:
            group.thaw()  # the frozen do not die
            process.container.paused = False
        return {}

    def op_pause(self, request: Request, ends: dict[str, int], reply: Reply) -> None:
        container = self._running(request)

        def done(error: SystemFailure | None) -> None:
            container.paused = error is None
            reply(None if error else {}, describe(error) if error else None)

        self.life.groups.freeze(container.cgroup, done)

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

    def op_delete(self, request: Request, ends: dict[str, int], reply: Reply) -> None:
        container = self._container(request)
        if container.state != "exited":
            raise Conflict(f"container {container.id} is running: stop it before removing it")
        if container.runtime is not None or container.poststop is not None:
            self.life.helpers[self._launcher.take_leave(container)] = lambda: self._delete(container, reply)
        else:
            self._delete(container, reply)

    def _delete(self, container: Container, reply: Reply) -> None:
        def done(error: SystemFailure | None) -> None:
            if error is not None:
                reply(None, describe(error))
                return
            if self.life.containers.pop(container.id, None) is not None and container.main is not None:
                container.main.forget()
                self.life.exit_files.forget(container.bundle)
                self.life.forget_group(container)
            reply({}, None)

        if container.has_group:
            self.life.groups.remove(container.cgroup, done)
        else:
            done(None)

    def op_list(self, request: Request, ends: dict[str, int], reply: Reply) -> dict[str, Any]:
        return {"containers": [container.describe() for container in self.life.containers.values()]}

    def _container(self, request: Request) -> Container:
        container = self.life.containers.get(request["container"])
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
