"""Start a container or an exec: pipes, cgroup, clone; then follow the child over its status socket until execve.

The keeper never waits for a child. A start is answered when the socket closes after "ready", and several are under way at once.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import termios
from collections.abc import Callable, Mapping
from fcntl import F_SETPIPE_SZ, fcntl, ioctl
from typing import Any

from atoll.errors import AtollError, InvalidInput, SystemFailure
from atoll.kernel import chroot, processes
from atoll.kernel.cgroups import Cgroup
from atoll.runtime import init, protocol, sysctls
from atoll.runtime.bundle import check, namespaces_of, read_spec
from atoll.runtime.complain import complain
from atoll.runtime.container import Container, Process, Reply
from atoll.runtime.journal import Journal, KeptLog
from atoll.runtime.logs import READ_SIZE
from atoll.runtime.loop import Loop
from atoll.runtime.spares import Spare
from atoll.runtime.streams import Input, Output

NO_HOOKS = (None, None, None)
# What brings in `extras`, which few containers need.
_EXTRA = frozenset(("personality", "timeOffsets", "intelRdt", "mountLabel", "uidMappings", "gidMappings", "netDevices"))
_EXTRA_OF_PROCESS = frozenset(("scheduler", "ioPriority", "execCPUAffinity", "selinuxLabel"))
_EXTRA_NAMESPACES = frozenset(("user", "time"))


class Stdio:
    """The pipes of one process: the child's ends, and ours."""

    def __init__(self, *, stdin: bool) -> None:
        self.theirs: list[int] = []
        self.input = -1
        if stdin:
            read_end, self.input = os.pipe2(os.O_CLOEXEC)
            self.theirs.append(read_end)
        else:
            self.theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        self.outputs: dict[str, int] = {}
        for name in ("stdout", "stderr"):
            self.outputs[name], write_end = os.pipe2(os.O_CLOEXEC)
            self.theirs.append(write_end)
            try:
                fcntl(write_end, F_SETPIPE_SZ, READ_SIZE)
            except OSError:
                continue  # over the user's pipe budget: it stays at 64 KiB

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def close_ours(self) -> None:
        for fd in (self.input, *self.outputs.values()):
            if fd >= 0:
                os.close(fd)


def _extras() -> Any:
    from atoll.runtime import extras

    return extras


def _wants_extras(spec: Mapping[str, Any], process: Mapping[str, Any]) -> bool:
    linux = spec["linux"]
    return (
        not _EXTRA.isdisjoint(linux)
        or not _EXTRA_OF_PROCESS.isdisjoint(process)
        or any(namespace["type"] in _EXTRA_NAMESPACES for namespace in linux.get("namespaces") or ())
    )


class Launcher:
    """Clones children for the keeper. `cache` is where compiled seccomp filters lie."""

    def __init__(self, loop: Loop, cache: str) -> None:
        self._loop = loop
        self._cache = cache
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._in_chroot = chroot.is_inside()

    def plan_ahead(self, container_id: str, cgroup: Cgroup, status: socket.socket) -> init.Plan:
        """What a spare can know."""
        return init.Plan({}, {}, cgroup, self._cache, status, None, container=container_id, in_chroot=self._in_chroot)

    def start(
        self,
        container: Container,
        spec: Mapping[str, Any],
        request: Mapping[str, Any],
        reply: Reply,
        keep: Callable[[Process], None],
        spare: Spare | None = None,
    ) -> Process:
        """By way of the `spare`, where there is one that `suits`. Raises AtollError; nothing is left then but the cgroup.

        `keep` writes down the child while it still waits to be let go: a child that no keeper knows of has never come to its program.
        """
        if container.runtime is not None:
            return self._start_elsewhere(container, spec, request, reply, keep)
        linux = spec["linux"]
        check(spec)
        sysctls.check(linux.get("sysctl") or {}, linux.get("namespaces") or ())
        resources = linux.get("resources") or {}
        container.cgroup.create_unified(resources)
        fresh, joined_pids = namespaces_of(linux.get("namespaces") or ())
        container.has_own_pids = bool(fresh & processes.NEWPID)
        if spare is not None:
            started = self._wake(spare, container, spec["process"], request, reply)
            if started is not None:
                self._let_go(started, resources, keep)
                return started
        if joined_pids:
            fd = os.open(joined_pids, os.O_RDONLY | os.O_CLOEXEC)
            try:
                processes.join(fd, processes.NEWPID, f"namespace {joined_pids}")
            finally:
                os.close(fd)
        try:
            started = self._clone(
                container,
                None,
                spec,
                spec["process"],
                fresh,
                init.start,
                reply,
                stdin=bool(request.get("stdin")),
                close_once=bool(request.get("stdin_once", True)),
                overlay=request.get("rootfs"),
            )
        finally:
            if joined_pids:
                processes.join(self._own_pids, processes.NEWPID, "the keeper's own pid namespace")
        self._let_go(started, resources, keep)
        return started

    def _let_go(self, started: Process, resources: Mapping[str, Any], keep: Callable[[Process], None]) -> None:
        """Raises SystemFailure; the child is dead then."""
        try:
            keep(started)
            let_go(started, resources)
        except BaseException:
            os.kill(started.pid, signal.SIGKILL)  # reaped with the rest
            started.give_up()
            raise

    def _wake(
        self,
        spare: Spare,
        container: Container,
        process: Mapping[str, Any],
        request: Mapping[str, Any],
        reply: Reply,
    ) -> Process | None:
        """None where the spare has died."""
        stdio = None if process.get("terminal") else Stdio(stdin=bool(request.get("stdin")))
        has_become = spare.become(request.get("rootfs"), tuple(stdio.theirs) if stdio else ())
        if stdio:
            stdio.close_theirs()
        if not has_become:
            spare.status.close()
            if stdio:
                stdio.close_ours()
            return None
        started = Process(container, None, spare.status, reply)
        started.pid = spare.pid
        self._listen(started, stdio, close_once=bool(request.get("stdin_once", True)))
        return started

    def _start_elsewhere(
        self,
        container: Container,
        spec: Mapping[str, Any],
        request: Mapping[str, Any],
        reply: Reply,
        keep: Callable[[Process], None],
    ) -> Process:
        from atoll.runtime import external  # only where another runtime is asked for

        started = self._clone(
            container,
            None,
            spec,
            spec["process"],
            0,
            external.create,
            reply,
            stdin=bool(request.get("stdin")),
            close_once=bool(request.get("stdin_once", True)),
            overlay=request.get("rootfs"),
        )
        keep(started)
        return started

    def exec(self, container: Container, exec_id: str, process: Mapping[str, Any], reply: Reply, *, stdin: bool) -> Process:
        """Raises AtollError."""
        assert container.main is not None
        spec = read_spec(container.bundle)
        if container.runtime is not None:
            from atoll.runtime import external

            return self._clone(container, exec_id, spec, process, 0, external.execute, reply, stdin=stdin, close_once=True)
        target = os.pidfd_open(container.main.pid)
        try:
            return self._clone(container, exec_id, spec, process, 0, init.join, reply, stdin=stdin, close_once=True, target=target)
        finally:
            os.close(target)

    def _clone(
        self,
        container: Container,
        exec_id: str | None,
        spec: Mapping[str, Any],
        process: Mapping[str, Any],
        namespaces: int,
        body: Any,
        reply: Reply,
        *,
        stdin: bool,
        close_once: bool,
        overlay: Mapping[str, Any] | None = None,
        target: int = -1,
    ) -> Process:
        stdio = None if process.get("terminal") else Stdio(stdin=stdin)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        unified = container.cgroup.open_unified() if container.runtime is None else None
        hooks, sync, theirs_of_sync = _hooks(spec) if exec_id is None and spec.get("hooks") and container.runtime is None else NO_HOOKS
        extras = _extras() if container.runtime is None and _wants_extras(spec, process) else None
        if extras is not None:
            spec = extras.prepare({**spec, "process": process})
        plan = init.Plan(
            spec=spec,
            process=process,
            cgroup=container.cgroup,
            cache=self._cache,
            status=theirs,
            stdio=(stdio.theirs[0], stdio.theirs[1], stdio.theirs[2]) if stdio else None,
            bundle=container.bundle,
            overlay=overlay,
            target=target,
            container=container.id,
            hooks=hooks,
            extras=extras,
            sync=theirs_of_sync,
            runtime=container.runtime,
            pid=container.main.pid if container.main is not None else 0,
            in_chroot=self._in_chroot,
        )
        try:
            pid = processes.clone(namespaces, cgroup=unified)
            if pid == 0:
                init.run(plan, body)
            if hooks is not None and processes.clone() == 0:
                hooks.attend(spec, container.id, container.bundle, pid, sync, theirs)
        except AtollError:
            ours.close()
            if stdio:
                stdio.close_ours()
            raise
        finally:
            for end in (theirs, sync, theirs_of_sync):
                if end is not None:
                    end.close()
            if stdio:
                stdio.close_theirs()
            if unified is not None:
                os.close(unified)
        started = Process(container, exec_id, ours, reply)
        started.pid = pid if exec_id is None and container.runtime is None else 0  # else it is told later, by the child
        started.is_attended = hooks is not None or container.runtime is not None
        self._listen(started, stdio, close_once=close_once)
        return started

    def _listen(self, started: Process, stdio: Stdio | None, *, close_once: bool) -> None:
        """To the child of now on."""
        assert started.status is not None
        started.status.setblocking(False)
        if stdio is None:
            return
        log = started.container.log if started.exec_id is None else None
        for name, fd in stdio.outputs.items():
            started.outputs[name] = Output(self._loop, fd, name, log)
        if stdio.input >= 0:
            started.inputs = Input(self._loop, stdio.input, close_once=close_once)

    def take_leave(self, container: Container) -> int:
        """Clone a child that has the other runtime forget the container, or runs its poststop hooks; its pid."""
        from atoll.runtime import external, hooks

        if container.runtime is not None:
            return _help(container, lambda: external.delete(container.runtime))
        assert container.poststop is not None
        poststop = container.poststop
        return _help(container, lambda: hooks.run_all(*poststop))

    def send_signal(self, container: Container, number: int) -> int:
        """Clone a child that has the other runtime do it: the process we know may be but the sandbox of the one that is meant."""
        from atoll.runtime import external

        return _help(container, lambda: external.kill(container.runtime, number))


def let_go(started: Process, resources: Mapping[str, Any]) -> None:
    """Make the groups, while the child does what needs none, and tell it so; it waits for this word. May be done again by another keeper,
    who cannot know whether the word was given: the child takes but one. Raises SystemFailure.
    """
    started.container.cgroup.create_v1(resources)
    assert started.status is not None
    try:
        protocol.send(started.status, {"groups": True})
    except OSError:
        return  # it has died, which is seen by its socket


def _help(container: Container, work: Callable[[], None]) -> int:
    """Clone a child for a piece of work that takes its time; its pid."""
    pid = processes.clone()
    if pid == 0:
        try:
            processes.keep_only(set())
            work()
        except Exception as error:
            complain(f"container {container.id}: {error}")
        finally:
            os._exit(0)
    return pid


def another_runtime(fields: Mapping[str, str], container: Container) -> Any:
    """The external.Target of a container that another runtime is to have."""
    from atoll.runtime import external

    return external.target(fields, container.id, container.bundle, container.cgroup)


def poststop(spec: Mapping[str, Any], container: Container) -> tuple[Any, dict[str, Any]] | None:
    """The hooks to run when the container is deleted, and what they are told."""
    from atoll.runtime import hooks

    hooks.check(spec)
    found = spec["hooks"].get("poststop")
    return (found, hooks.state(spec, container.id, container.bundle, "stopped")) if found else None


def suits(spare: Spare, path: str, spec: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Whether what the spare was born with is what the start asks for, and nothing that only a child made for it can have."""
    if request.get("runtime") or spec.get("hooks") or _wants_extras(spec, spec["process"]) or spare.cgroup.path != path:
        return False
    try:
        return (spare.namespaces, "") == namespaces_of(spec["linux"].get("namespaces") or ())
    except InvalidInput:
        return False  # the start says why


def _hooks(spec: Mapping[str, Any]) -> tuple[Any, socket.socket, socket.socket]:
    """The module, loaded already, and the two ends between the attendant and the init."""
    from atoll.runtime import hooks

    return hooks, *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def open_log(request: Mapping[str, Any], journal: Journal) -> KeptLog | None:
    """Raises SystemFailure."""
    log = request.get("log")
    if not log:
        return None
    try:
        return KeptLog(log["path"], log.get("max_size"), log.get("max_files"), journal)
    except OSError as error:
        raise SystemFailure(f"open log {log['path']}", error.errno or 0) from error


def resize(terminal: int, rows: int, columns: int) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def cgroup_path(instance_id: str, container_id: str, asked: str | None) -> str:
    """An absolute path is taken from the hierarchies' roots, a relative one from the instance's own group (OCI config-linux, Cgroups
    Path). Raises InvalidInput.
    """
    asked = asked or container_id
    path = os.path.normpath(f"/{asked.replace(':', '/')}").replace("//", "/")  # no ".." leads above a root
    if path == "/" or not path.isprintable():
        raise InvalidInput(f"linux.cgroupsPath {asked!r} names no group of the container's own")
    return path if asked.startswith("/") else f"/atoll-{instance_id}{path}"
