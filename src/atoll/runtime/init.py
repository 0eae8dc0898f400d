"""What the forked child does between clone and execve, for a container and for an exec.

It is the keeper's own memory image, so everything it needs is loaded already: nothing may be imported once the root is the container's.
What goes wrong travels to the keeper over the status socket as a message; the socket closing without one, after "ready", is the sign that
execve has succeeded.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import signal
import socket
import stat
import struct
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from atoll.errors import AtollError, InvalidInput, NotSupported, SystemFailure
from atoll.kernel import capabilities, chroot, inroot, processes, seccomp
from atoll.kernel.cgroups import Cgroup
from atoll.runtime import confine, program, protocol, reaper, rootfs, sysctls, terminal, users
from atoll.runtime.constants import INIT, SECCOMP_DIGEST
from atoll.runtime.errors import CommandNotExecutable, CommandNotFound, StartFailed

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NULL = os.makedev(1, 3)


class Plan(NamedTuple):
    """What the child is to become.

    `stdio` are the descriptors for 0, 1 and 2, None with a terminal. `target` is the pidfd of the container to join. `hooks` is the module
    where the container has hooks, `sync` then the socket to their attendant; `extras` the module where the spec has something for it, and
    `user_namespace` what it made. `runtime` is an external.Target where another runtime does the work, `pid` the main process of the
    container it has. `in_chroot`: the keeper's root is not the machine's.
    """

    spec: Mapping[str, Any]
    process: Mapping[str, Any]
    cgroup: Cgroup
    cache: str
    status: socket.socket
    stdio: tuple[int, int, int] | None
    bundle: str = ""
    overlay: Mapping[str, Any] | None = None
    target: int = -1
    container: str = ""
    hooks: Any = None
    extras: Any = None
    user_namespace: int = -1
    sync: socket.socket | None = None
    runtime: Any = None
    pid: int = 0
    in_chroot: bool = False


def run(plan: Plan, body: Any) -> NoReturn:
    """Be the child: `body(plan)` does not return."""
    try:
        gc.disable()
        _reset_signals()
        os.umask(0)
        synced = {plan.sync.fileno()} if plan.sync is not None else set()
        processes.keep_only({plan.status.fileno(), plan.target, *(plan.stdio or ()), *synced})
        body(plan)
    except BaseException as error:
        _report(plan.status, error)
    os._exit(1)


def start(plan: Plan) -> NoReturn:
    """A container's first process, born in the namespaces that are new."""
    spec, linux = plan.spec, plan.spec["linux"]
    os.setsid()
    if plan.in_chroot:
        chroot.become_root()
    _enter_namespaces(linux.get("namespaces") or ())
    profile = _filter(plan)
    if plan.extras is not None:
        plan = plan._replace(user_namespace=plan.extras.begin(spec, plan.overlay))
    if spec.get("hostname"):
        socket.sethostname(spec["hostname"])
    if spec.get("domainname"):
        _write("/proc/sys/kernel/domainname", spec["domainname"])
    root = rootfs.mount_root(plan.bundle, spec["root"]["path"], plan.overlay, linux.get("rootfsPropagation") or "")
    rootfs.mount_all(root, spec, plan.cgroup, before_cgroup=lambda: _enter_groups(plan))
    rootfs.make_devices(root, spec)
    sysctls.write(root, linux.get("sysctl") or {})
    user = users.of(root, plan.process["user"])
    _make_directory(root, plan.process["cwd"])
    stdio = _stdio(plan, root, console=True)
    if plan.sync is not None:
        plan.hooks.before_pivot(plan.sync, spec, plan.container, plan.bundle)
    rootfs.protect(root, spec)
    rootfs.enter(root, linux.get("rootfsPropagation") or "")
    _execute(plan, user, stdio, profile)


def join(plan: Plan) -> NoReturn:
    """A process in a running container. This one enters the namespaces; its child, born a child of the keeper, is also in the pid
    namespace.

    The child comes last, so that nothing inside sees a process that is still half the host's.
    """
    plan.cgroup.enter()
    profile = _filter(plan)
    if plan.extras is not None:
        plan.extras.give(plan.stdio or (), plan.spec["linux"])
        confine.set_limits(plan.process)  # a user namespace might not let us
    flags = 0
    for namespace in plan.spec["linux"].get("namespaces") or ():
        flags |= processes.NAMESPACES[namespace["type"]][0]
    processes.join(plan.target, flags, "the container's namespaces")
    if flags & processes.NEWUSER:
        capabilities.available.cache_clear()  # here there are all of them
        processes.become_root()
    os.close(plan.target)
    pid = processes.clone(as_sibling=True)
    if pid:
        protocol.send(plan.status, {"pid": pid})
        os._exit(0)
    os.setsid()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    user = users.of(root, plan.process["user"])
    stdio = _stdio(plan, root, console=False)
    os.close(root)
    _execute(plan, user, stdio, profile)


def _execute(plan: Plan, user: users.User, stdio: tuple[int, int, int], profile: tuple[bytes | None, int]) -> NoReturn:
    process = plan.process
    sys.path.clear()
    variables = program.environment(process, user.home)
    for number, fd in enumerate(stdio):
        os.dup2(fd, number, inheritable=True)
    if plan.extras is None or plan.target < 0:
        confine.set_limits(process)
    if plan.extras is not None:
        if plan.target < 0:
            plan.extras.give((0, 1, 2), plan.spec["linux"])
        plan.extras.finish(process, plan.spec["linux"], plan.user_namespace, is_exec=plan.target >= 0)
    _own_stdio(user.uid)
    try:
        os.chdir(process["cwd"])  # as root first: a user's own directory on a share may be closed to it, or to root
    except OSError:
        os.chdir("/")
    confine.apply(process, user, *profile)
    program.change_directory(process["cwd"])
    path = program.find(process["args"][0], variables.get("PATH"))
    if plan.sync is not None:
        plan.hooks.before_program(plan.spec, plan.container, plan.bundle)

    def execute() -> NoReturn:
        for end in (plan.status, plan.sync):
            if end is not None:
                protocol.send(end, {"ready": True})
        try:
            program.execute(path, list(process["args"]), variables)
        except AtollError as error:
            if plan.sync is not None:
                protocol.send(plan.sync, {"failed": True})
            _report(plan.status, error)
            os._exit(error.exit_code if isinstance(error, StartFailed) else 1)

    if plan.target < 0 and (plan.spec.get("annotations") or {}).get(INIT) == "true":
        synced = {plan.sync.fileno()} if plan.sync is not None else set()
        reaper.become(execute, process["args"], {plan.status.fileno(), *stdio, *synced} - {0, 1, 2})
    execute()


def _enter_groups(plan: Plan) -> None:
    """Into the groups, which the keeper makes meanwhile; then into a cgroup namespace whose root they are, or one that is joined."""
    if protocol.receive(plan.status) is None:
        os._exit(1)  # it could not, or is gone
    plan.cgroup.enter()
    for namespace in plan.spec["linux"].get("namespaces") or ():
        if namespace["type"] == "cgroup":
            if namespace.get("path"):
                processes.join_path(namespace["path"], processes.NEWCGROUP)
            else:
                processes.unshare(processes.NEWCGROUP)


def _enter_namespaces(namespaces: Any) -> None:
    """New ones were made by clone; what is joined by path remains. The cgroup namespace comes later, when there are groups."""
    for namespace in namespaces:
        kind, path = namespace["type"], namespace.get("path")
        if kind not in processes.NAMESPACES:
            raise InvalidInput(f"unknown namespace type {kind}")
        if kind in {"cgroup", "user"}:
            continue
        if path and kind != "pid":  # the keeper has seen to that one: it counts for children only
            processes.join_path(path, processes.NAMESPACES[kind][0])
        elif kind == "network" and not path:
            _loopback_up()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(sock, _SIOCGIFFLAGS, request + bytes(22)), 16)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP) + bytes(22))


def _filter(plan: Plan) -> tuple[bytes | None, int]:
    """The seccomp program, compiled once for each profile and kept in the instance's cache."""
    profile = plan.spec["linux"].get("seccomp")
    if not profile:
        return None, 0
    flags = seccomp.filter_flags(profile.get("flags") or [])
    digest = (plan.spec.get("annotations") or {}).get(SECCOMP_DIGEST, "")
    if not _DIGEST.fullmatch(digest):
        digest = _digest(profile)
    path = os.path.join(plan.cache, f"{digest}.bpf")
    try:
        with open(path, "rb") as cached:
            found = cached.read()
        if found:  # empty after a power cut: a rename may be on disk before what it names
            return found, flags
    except FileNotFoundError:
        pass
    compiled = seccomp.compile_profile(profile)
    # Random, since in a new pid namespace every child is process 1, and several may compile the same profile.
    temporary = f"{path}.{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as output:
        output.write(compiled)
        output.flush()
        os.fsync(fd)
    os.replace(temporary, path)
    return compiled, flags


def _digest(profile: Mapping[str, Any]) -> str:
    from atoll.runtime.seccomp import digest  # brings OpenSSL; only for bundles that are not of our own making

    return digest(profile)


def _make_directory(root: int, path: str) -> None:
    """Docker makes a working directory that the image does not have."""
    try:
        os.close(inroot.make_directory(root, path))
    except OSError as error:
        raise SystemFailure(f"create working directory {path}", error.errno or 0) from error


def _stdio(plan: Plan, root: int, *, console: bool) -> tuple[int, int, int]:
    if plan.stdio is not None:
        return plan.stdio
    try:
        master, slave = terminal.open_pair(root)
    except OSError as error:
        raise SystemFailure("open a terminal in the container's /dev/pts", error.errno or 0) from error
    size = plan.process.get("consoleSize")
    if size:
        terminal.set_size(master, size["height"], size["width"])
    if console:
        terminal.mount_console(root, master, slave)
    protocol.send(plan.status, {"terminal": True}, (master,))
    os.close(master)
    terminal.make_controlling(slave)
    return slave, slave, slave


def _own_stdio(uid: int) -> None:
    """So that /dev/stdout can be opened by whoever the process becomes. Its /dev/null is the host's, and everybody's."""
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL:
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError:
            continue  # a terminal bound from a read-only file system, say: then it can be opened anyway or never


def _reset_signals() -> None:
    """Handlers are reset by execve; what is ignored (Python itself ignores two) stays so, and would stay so in the container."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _report(status: socket.socket, error: BaseException) -> None:
    try:
        protocol.send(status, {"error": describe(error)})
    except OSError:
        os._exit(2)  # the keeper is gone; there is nobody to tell


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as the protocol's error object."""
    message = str(error)
    for kind, name in (
        (CommandNotFound, "command-not-found"),
        (CommandNotExecutable, "command-not-executable"),
        (StartFailed, "start-failed"),
        (NotSupported, "not-supported"),
        (InvalidInput, "invalid"),
    ):
        if isinstance(error, kind):
            return {"kind": name, "message": message}
    if isinstance(error, OSError) and error.errno:
        what = f"{error.filename}" if error.filename else type(error).__name__
        return {"kind": "start-failed", "message": f"{what}: {error.strerror}"}
    if isinstance(error, AtollError):
        return {"kind": "start-failed", "message": message}
    return {"kind": "start-failed", "message": f"{type(error).__name__}: {message}"}
