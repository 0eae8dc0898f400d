"""Start a container or an exec: pipes, cgroup, clone; then follow the child over its status socket until execve.

The keeper never waits for a child. A start is answered when the socket closes after "ready", and several are under way at once.
"""

from __future__ import annotations

import json
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
from atoll.runtime import init, protocol, sysctls
from atoll.runtime.complain import complain
from atoll.runtime.container import Container, Process, Reply
from atoll.runtime.journal import Journal, KeptLog
from atoll.runtime.logs import READ_SIZE
from atoll.runtime.loop import Loop
from atoll.runtime.streams import Input, Output

NO_HOOKS = (None, None, None)
_LATER = ("cgroup", "user", "time")  # namespaces that the child makes
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


def read_spec(bundle: str) -> dict[str, Any]:
    """Raises InvalidInput."""
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "rb") as config:
            spec = json.loads(config.read())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the bundle's {path}: {error}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("linux"), dict):
        raise InvalidInput(f"{path} is not an OCI runtime spec for Linux")
    check_process(spec.get("process"))
    return spec


def check(spec: Mapping[str, Any]) -> None:
    """What does not go together. Raises InvalidInput."""
    kinds = [namespace["type"] for namespace in spec["linux"].get("namespaces") or ()]
    if len(set(kinds)) < len(kinds):
        raise InvalidInput(f"linux.namespaces names one type twice: {', '.join(kinds)}")
    if "uts" not in kinds and (spec.get("hostname") or spec.get("domainname")):
        raise InvalidInput("hostname and domainname need a uts namespace")


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


def check_process(process: Any) -> None:
    """Raises InvalidInput."""
    if not isinstance(process, dict) or not process.get("args") or not all(isinstance(item, str) for item in process["args"]):
        raise InvalidInput("process.args must be a list of at least one string")
    cwd = process.get("cwd")
    if not isinstance(cwd, str) or not cwd.startswith("/"):
        raise InvalidInput(f"Cwd must be an absolute path: {cwd!r}")
    process.setdefault("user", {})


class Launcher:
    """Clones children for the keeper. `cache` is where compiled seccomp filters lie."""

    def __init__(self, loop: Loop, cache: str) -> None:
        self._loop = loop
        self._cache = cache
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._in_chroot = chroot.is_inside()

    def start(self, container: Container, spec: Mapping[str, Any], request: Mapping[str, Any], reply: Reply) -> Process:
        """Raises AtollError; nothing is left then but the cgroup."""
        if container.runtime is not None:
            return self._start_elsewhere(container, spec, request, reply)
        linux = spec["linux"]
        check(spec)
        sysctls.check(linux.get("sysctl") or {}, linux.get("namespaces") or ())
        resources = linux.get("resources") or {}
        container.cgroup.create_unified(resources)
        fresh, joined_pids = _namespaces(linux.get("namespaces") or ())
        container.has_own_pids = bool(fresh & processes.NEWPID)
        if joined_pids:
            fd = os.open(joined_pids, os.O_RDONLY | os.O_CLOEXEC)
            try:
                processes.join(fd, processes.NEWPID, f"namespace {joined_pids}")
            finally:
                os.close(fd)
        try:
            return self._clone(
                container,
                None,
                spec,
                spec["process"],
                fresh,
                init.start,
                reply,
                groups=lambda: container.cgroup.create_v1(resources),
                stdin=bool(request.get("stdin")),
                close_once=bool(request.get("stdin_once", True)),
                overlay=request.get("rootfs"),
            )
        finally:
            if joined_pids:
                processes.join(self._own_pids, processes.NEWPID, "the keeper's own pid namespace")

    def _start_elsewhere(self, container: Container, spec: Mapping[str, Any], request: Mapping[str, Any], reply: Reply) -> Process:
        from atoll.runtime import external  # only where another runtime is asked for

        return self._clone(
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
        groups: Callable[[], None] | None = None,
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
            if groups is not None:
                self._make_groups(pid, ours, groups)
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
        ours.setblocking(False)
        started = Process(container, exec_id, ours, reply)
        started.pid = pid if exec_id is None and container.runtime is None else 0  # else it is told later, by the child
        started.is_attended = hooks is not None or container.runtime is not None
        log = container.log if exec_id is None else None
        if stdio:
            for name, fd in stdio.outputs.items():
                started.outputs[name] = Output(self._loop, fd, name, log)
            if stdio.input >= 0:
                started.inputs = Input(self._loop, stdio.input, close_once=close_once)
        return started

    def _make_groups(self, pid: int, status: socket.socket, make: Callable[[], None]) -> None:
        """While the child does what needs none; it waits for this word. Raises SystemFailure."""
        try:
            make()
            protocol.send(status, {"groups": True})
        except BaseException:
            os.kill(pid, signal.SIGKILL)  # reaped with the rest
            raise

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


def cgroup_path(instance_id: str, container_id: str, spec: Mapping[str, Any]) -> str:
    """An absolute path is taken from the hierarchies' roots, a relative one from the instance's own group (OCI config-linux, Cgroups
    Path). Raises InvalidInput.
    """
    asked = str(spec["linux"].get("cgroupsPath") or container_id)
    path = os.path.normpath(f"/{asked.replace(':', '/')}").replace("//", "/")  # no ".." leads above a root
    if path == "/" or not path.isprintable():
        raise InvalidInput(f"linux.cgroupsPath {asked!r} names no group of the container's own")
    return path if asked.startswith("/") else f"/atoll-{instance_id}{path}"


def _namespaces(asked: Any) -> tuple[int, str]:
    """Flags of those to make at birth, and the path of a pid namespace to join. Raises InvalidInput."""
    flags, pids = 0, ""
    for namespace in asked:
        kind, path = namespace["type"], namespace.get("path")
        if kind not in processes.NAMESPACES:
            continue  # the child names it
        if kind == "pid" and path:
            pids = path
        elif not path and kind not in _LATER:
            flags |= processes.NAMESPACES[kind][0]
    if not flags & processes.NEWNS:
        raise InvalidInput("a container needs a mount namespace of its own: none was asked for, or one by path")
    return flags, pids
