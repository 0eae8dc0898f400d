"""Containers by another OCI runtime (runc, crun and their kin), through the command line that all of them share.

The keeper clones a driver, a child that lives for one operation: it runs `create` and `start` (or `exec`, `kill`, `delete`), tells the
keeper the pid by the same status socket that an init of our own uses, and ends. What the runtime leaves behind is then the keeper's child,
which is a subreaper: streams, exits and logs are as for any other container, and no shim stands between.

A driver works in a mount namespace of its own, so that the overlay it mounts for the runtime is seen by nobody else and goes away by
itself. crun refuses a hybrid of cgroups v1 and v2: there the unified hierarchy is hidden from it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from atoll.errors import NotSupported
from atoll.kernel import chroot, mounts, processes
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import mount_options, plain, protocol, rootfs, terminal
from atoll.runtime.errors import CommandNotExecutable, CommandNotFound, StartFailed

if TYPE_CHECKING:
    from atoll.runtime.init import Plan

DIRECTORY = "oci"  # in the bundle: what the runtime is given, and what it says
TIMEOUT_S = 60.0  # for one command; hooks may take their time
_HIDES_UNIFIED = ("crun",)
_LOG_MAX = 65536
_NOT_FOUND = re.compile(r"executable file .*not found in \$PATH|exec: .*no such file or directory|stat .*: no such file", re.IGNORECASE)
_NOT_EXECUTABLE = re.compile(r"permission denied|not permitted|is a directory|exec format error|not executable", re.IGNORECASE)


Taker = tuple[socket.socket, Callable[[], None]]  # where a runtime brings a terminal, and what takes it then


class Target(NamedTuple):
    """A runtime and a container of its. `root` is where it keeps its states, `sockets` a directory with a short path."""

    name: str
    path: str
    root: str
    sockets: str
    container: str
    bundle: str
    cgroup: Cgroup

    @property
    def directory(self) -> str:
        return os.path.join(self.bundle, DIRECTORY)


def target(runtime: Mapping[str, str], container: str, bundle: str, cgroup: Cgroup) -> Target:
    return Target(runtime["name"], runtime["path"], runtime["root"], runtime["sockets"], container, bundle, cgroup)


def create(plan: Plan) -> NoReturn:
    """The driver of a start: `plan` is an init.Plan with a `runtime`."""
    to, spec = plan.runtime, plan.spec
    if spec["linux"].get("uidMappings"):
        raise NotSupported(f'the runtime "{to.name}" is not given user namespaces, whose layers only we can map: use the runtime atoll')
    _begin(to, spec)
    os.makedirs(to.directory, 0o700, exist_ok=True)
    root = rootfs.mount_root(plan.bundle, spec["root"]["path"], plan.overlay, "rprivate")
    root_path = plan.overlay["upper"] if plan.overlay is not None else os.path.join(plan.bundle, spec["root"]["path"])
    config = plain.config(
        spec,
        root=root,
        root_path=root_path,
        cgroup=to.cgroup,
        places=to.directory,
        swap=_counts_swap(to.cgroup.layout),
    )
    os.close(root)
    _save(to, "config.json", config)
    _command(to, "delete", ["--force", to.container], check=False)  # of a keeper that has died, say
    try:
        _launch(plan, ["create", "--bundle", to.directory], [to.container])
        _command(to, "start", [to.container])
    except BaseException:
        _command(to, "delete", ["--force", to.container], check=False)
        raise
    protocol.send(plan.status, {"ready": True})
    os._exit(0)


def execute(plan: Plan) -> NoReturn:
    """The driver of an exec. The container's main process leads to its root, for users by name."""
    to = plan.runtime
    _begin(to, None)
    root = os.open(f"/proc/{plan.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"{os.urandom(4).hex()}.json"
    _save(to, name, plain.process(plan.process, root))
    os.close(root)
    try:
        _launch(plan, ["exec", "--detach", "--process", os.path.join(to.directory, name)], [to.container])
    finally:
        os.unlink(os.path.join(to.directory, name))
    protocol.send(plan.status, {"ready": True})
    os._exit(0)


def kill(to: Target, number: int) -> None:
    """A signal to the main process. That it has just ended by itself is no failure."""
    _begin(to, None)
    _command(to, "kill", [to.container, str(number)], check=False)


def delete(to: Target) -> None:
    """After the end: the runtime forgets its state and runs poststop hooks."""
    _begin(to, None)
    _command(to, "delete", ["--force", to.container], check=False)


def _counts_swap(layout: Layout) -> bool:
    """Version 1 has the file only where the kernel was told to count."""
    return "memory" not in layout.v1 or os.path.exists(os.path.join(layout.v1["memory"], "memory.memsw.limit_in_bytes"))


def _begin(to: Target, spec: Mapping[str, Any] | None) -> None:
    """One driver at a time for a container, alone with its mounts."""
    lock = os.open(to.bundle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until we end
    for mount in (spec or {}).get("mounts") or ():
        if any(kind == mounts.MS_SHARED for kind, _ in mount_options.parse(mount.get("options") or ()).propagation):
            raise NotSupported(
                f'the mount at {mount["destination"]} asks for shared propagation, which the runtime "{to.name}" cannot give here: '
                "use the runtime atoll"
            )
    os.umask(0o022)
    in_chroot = chroot.is_inside()
    processes.unshare(processes.NEWNS)
    if in_chroot:
        chroot.become_root()
    mounts.propagate("/", mounts.MS_SLAVE)
    layout = to.cgroup.layout
    if to.name in _HIDES_UNIFIED and layout.mode == "hybrid":
        mounts.unmount(layout.unified, mounts.MNT_DETACH)


def _launch(plan: Plan, before: Sequence[str], after: Sequence[str]) -> None:
    """A command that leaves a process behind: its terminal and its pid reach the keeper."""
    to = plan.runtime
    pid_file = os.path.join(to.directory, f"{os.urandom(4).hex()}.pid")
    options = ["--pid-file", pid_file]
    listener, path = None, ""
    if plan.stdio is None:
        path = os.path.join(to.sockets, f"t{os.urandom(4).hex()}")  # short: a unix socket's path ends at 107 bytes
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(path)
        listener.listen(1)
        options += ["--console-socket", path]
    try:
        _command(to, before[0], [*before[1:], *options, *after], stdio=plan.stdio, on_terminal=_terminal_taker(plan, listener))
        with open(pid_file, encoding="ascii") as file:
            protocol.send(plan.status, {"pid": int(file.read())})
    finally:
        if listener is not None:
            listener.close()
            os.unlink(path)
        if os.path.exists(pid_file):
            os.unlink(pid_file)


def _terminal_taker(plan: Plan, listener: socket.socket | None) -> Taker | None:
    if listener is None:
        return None

    def take() -> None:
        connection, _ = listener.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        size = plan.process.get("consoleSize")
        if size:
            terminal.set_size(descriptors[0], size["height"], size["width"])
        protocol.send(plan.status, {"terminal": True}, (descriptors[0],))
        os.close(descriptors[0])

    return listener, take


def _command(
    to: Target,
    verb: str,
    arguments: Sequence[str],
    *,
    stdio: tuple[int, int, int] | None = None,
    on_terminal: Taker | None = None,
    check: bool = True,
) -> None:
    """Run one command of the runtime to its end. Raises StartFailed and kin with what the runtime wrote to its log."""
    log = os.path.join(to.directory, "log.json")
    if os.path.exists(log):
        os.unlink(log)
    os.makedirs(to.root, 0o700, exist_ok=True)
    os.makedirs(to.directory, 0o700, exist_ok=True)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    ends = stdio or (null, null, null)
    child = os.posix_spawn(
        to.path,
        [to.path, "--root", to.root, "--log", log, "--log-format", "json", verb, *arguments],
        {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(ends)],
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ),
    )
    os.close(null)
    status = _wait(to, verb, child, on_terminal)
    if status and check:
        raise _failure(to, verb, log)


def _wait(to: Target, verb: str, child: int, on_terminal: Taker | None) -> int:
    deadline = time.monotonic() + TIMEOUT_S
    pidfd = os.pidfd_open(child)
    watched = [pidfd, *([on_terminal[0]] if on_terminal else ())]
    try:
        while True:
            ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise StartFailed(f"{to.path} {verb} {to.container} did not end within {TIMEOUT_S:.0f} s")
            if on_terminal and on_terminal[0] in ready:
                on_terminal[1]()
                watched, on_terminal = [pidfd], None
            if pidfd in ready:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(pidfd)


def _failure(to: Target, verb: str, log: str) -> StartFailed:
    message = _last_words(log) or f"{to.path} {verb} failed without a word"
    text = f"OCI runtime {verb} failed: {message}"
    if _NOT_FOUND.search(message):  # clients look for Go's words, which crun has others for
        return CommandNotFound(text if "executable file not found" in text else f"{text} (executable file not found)")
    return CommandNotExecutable(text) if _NOT_EXECUTABLE.search(message) else StartFailed(text)


def _last_words(log: str) -> str:
    """The message of the last error in the log; its other lines are warnings."""
    try:
        with open(log, "rb") as file:
            lines = file.read(_LOG_MAX).splitlines()
    except OSError:
        return ""
    said = ""
    for line in lines:
        entry = _entry(line)
        if entry.get("level") == "error" or not said:
            said = str(entry.get("msg", ""))
    return str(_entry(said).get("msg", said))  # crun wraps what its child had logged


def _entry(line: bytes | str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _save(to: Target, name: str, content: Mapping[str, Any]) -> None:
    fd = os.open(os.path.join(to.directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(content, file)
