"""OCI hooks: programs of the administrator's (or of a device's vendor) run at six points of a container's life (runtime-spec, config.md).

    prestart, createRuntime   outside, when the container's namespaces and mounts are made; it waits
    createContainer           in the container's namespaces, before pivot_root: the host's files are still in sight
    startContainer            inside, as the container's user, just before its program
    poststart                 outside, when the program runs and before the start is answered
    poststop                  outside, when the container is deleted

Each gets the container's state as JSON on stdin, its own environment and nothing of ours, and as long as its `timeout` says. A hook that
fails ends the start, and poststop hooks still run; of poststop hooks failures are only logged.

Those that run outside are run by an attendant: a second child of the keeper's, cloned only for a container that has hooks, which holds the
start open until it is done. The keeper itself never waits.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from atoll.errors import AtollError, InvalidInput
from atoll.kernel import processes
from atoll.runtime import protocol
from atoll.runtime.complain import complain
from atoll.runtime.errors import StartFailed

NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
WORDS_MAX = 2000  # bytes of a failed hook's output that its error shows
_READ_SIZE = 65536

Hook = Mapping[str, Any]


def check(spec: Mapping[str, Any]) -> None:
    """Raises InvalidInput naming the hook that is none."""
    hooks = spec.get("hooks")
    if not isinstance(hooks, dict):
        raise InvalidInput("hooks must be an object of lists")
    for kind, entries in hooks.items():
        if kind not in NAMES:
            raise InvalidInput(f"there is no hook {kind}: use one of {', '.join(NAMES)}")
        for number, hook in enumerate(entries or ()):
            where = f"{kind} hook #{number}"
            if not isinstance(hook, dict) or not isinstance(hook.get("path"), str) or not hook["path"].startswith("/"):
                raise InvalidInput(f"{where}: its path must be absolute")
            if not _are_texts(hook.get("args")) or not _are_texts(hook.get("env")):
                raise InvalidInput(f"{where}: args and env must be lists of strings")
            timeout = hook.get("timeout")
            if timeout is not None and (not isinstance(timeout, int) or timeout <= 0):
                raise InvalidInput(f"{where}: its timeout must be a number of seconds greater than zero")


def state(spec: Mapping[str, Any], container: str, bundle: str, status: str, pid: int = 0) -> dict[str, Any]:
    """The container's state (runtime-spec, runtime.md)."""
    found: dict[str, Any] = {"ociVersion": spec.get("ociVersion", ""), "id": container, "status": status}
    if pid:
        found["pid"] = pid
    return found | {"bundle": bundle, "annotations": spec.get("annotations") or {}}


def run(spec: Mapping[str, Any], kind: str, about: Mapping[str, Any]) -> None:
    """Run the hooks of one kind in their order. Raises StartFailed at the first that fails."""
    for number, hook in enumerate((spec.get("hooks") or {}).get(kind) or ()):
        problem = _run(hook, about)
        if problem:
            raise StartFailed(f"error running {kind} hook #{number} ({hook['path']}): {problem}")


def run_all(hooks: Sequence[Hook], about: Mapping[str, Any]) -> None:
    """Poststop: each of them runs, whatever becomes of the others."""
    for number, hook in enumerate(hooks):
        problem = _run(hook, about)
        if problem:
            complain(f"container {about['id']}: poststop hook #{number} ({hook['path']}): {problem}")


# in the container's init -----------------------------------------------------------------------------------------------------------------


def before_pivot(sync: socket.socket, spec: Mapping[str, Any], container: str, bundle: str) -> None:
    """Let the attendant run its hooks, then run createContainer's, all before the root changes. Raises StartFailed."""
    protocol.send(sync, {"created": True})
    received = protocol.receive(sync)
    if received is None:
        raise StartFailed("the process that runs the hooks has ended")
    answer, _ = received
    if "error" in answer:
        raise StartFailed(answer["error"])
    os.chdir(bundle)
    run(spec, "createContainer", state(spec, container, bundle, "creating", answer["pid"]))


def before_program(spec: Mapping[str, Any], container: str, bundle: str) -> None:
    """Inside, confined already, as runc does it. Its pid is the container's own view."""
    run(spec, "startContainer", state(spec, container, bundle, "created", os.getpid()))


# beside it -------------------------------------------------------------------------------------------------------------------------------


def attend(spec: Mapping[str, Any], container: str, bundle: str, pid: int, sync: socket.socket, status: socket.socket) -> NoReturn:
    """Be the attendant of the init `pid`. Holding `status` keeps the keeper from answering the start before poststart hooks are done."""
    try:
        os.umask(0o022)
        init = os.pidfd_open(pid)
        processes.keep_only({sync.fileno(), status.fileno(), init})
        os.chdir(bundle)
        _attend(spec, container, bundle, pid, init, sync, status)
    except BaseException as error:
        complain(f"container {container}: hooks: {error}")
    os._exit(0)


def _attend(spec: Mapping[str, Any], container: str, bundle: str, pid: int, init: int, sync: socket.socket, status: socket.socket) -> None:
    if protocol.receive(sync) is None:
        return  # it did not come so far
    try:
        for kind in ("prestart", "createRuntime"):
            run(spec, kind, state(spec, container, bundle, "creating", pid))
        protocol.send(sync, {"pid": pid})
        if _has_started(sync):
            run(spec, "poststart", state(spec, container, bundle, "running", pid))
            return
    except AtollError as error:
        if not _tell(sync, str(error)):  # it waits for no answer any more: it runs
            signal.pidfd_send_signal(init, signal.SIGKILL)
            protocol.send(status, {"error": {"kind": "start-failed", "message": str(error)}})
    select.select([init], [], [])
    run_all((spec.get("hooks") or {}).get("poststop") or (), state(spec, container, bundle, "stopped"))


def _has_started(sync: socket.socket) -> bool:
    """Whether the socket closes after "ready" and without "failed": by execve, that is."""
    ready = False
    while (received := protocol.receive(sync)) is not None:
        ready = "ready" in received[0]
    return ready


def _tell(sync: socket.socket, problem: str) -> bool:
    try:
        protocol.send(sync, {"error": problem})
    except OSError:
        return False
    return True


def _run(hook: Hook, about: Mapping[str, Any]) -> str:
    """What went wrong, "" where nothing did."""
    stdin = os.memfd_create("state", os.MFD_CLOEXEC)
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(theirs, True)
        os.write(stdin, json.dumps(about).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        environment = dict(item.partition("=")[::2] for item in hook.get("env") or ())
        child = os.posix_spawn(
            hook["path"],
            list(hook.get("args") or [hook["path"]]),
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, theirs, 1), (os.POSIX_SPAWN_DUP2, theirs, 2)],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ),
        )
        os.close(theirs)
        theirs = -1
        return _outcome(child, ours, hook.get("timeout"))
    except OSError as error:
        return f"{error.strerror}"
    except ValueError as error:  # a NUL in an argument
        return str(error)
    finally:
        for fd in (stdin, ours, theirs):
            if fd >= 0:
                os.close(fd)


def _outcome(child: int, output: int, timeout: int | None) -> str:
    """Wait for the hook, reading what it says so that it never blocks; it is ended with all its group when its time is over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    words, pidfd = b"", os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(left))
            if output in ready:
                data = _read(output)
                words = (words + data)[-WORDS_MAX:]
                if not data:
                    poll.unregister(output)
            if pidfd in ready:
                break
            if not ready:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"it did not end within its timeout of {timeout} s"
    finally:
        os.close(pidfd)
    _, status = os.waitpid(child, 0)
    words = (words + _read(output))[-WORDS_MAX:]
    said = words.decode(errors="replace").strip()
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}, output: {said}"
    code = os.WEXITSTATUS(status)
    return f"exit status {code}, output: {said}" if code else ""


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_SIZE)
    except BlockingIOError:
        return b""


def _are_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))
