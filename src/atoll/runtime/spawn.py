"""Find the keeper's socket, or start a keeper.

Two engines starting at once must end with one keeper: whoever holds the lock looks again and only then starts one.

The keeper's interpreter is a sealed copy in memory. When an image's entrypoint is a link to /proc/self/exe, the program that starts the
container executes itself inside it, and the container can then open that program for writing (CVE-2019-5736): it must not be the host's
python.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

from atoll.config import Instance
from atoll.errors import Unavailable
from atoll.kernel import memfd

START_TIMEOUT_S = 10.0
TRY_TIMEOUT_S = 10.0
_LOAD = "import sys; sys.path.append(sys.argv[1]); from atoll.runtime.keeper import main"
_BOOT = f"{_LOAD}; main(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), *sys.argv[6:])"


def open_connection(instance: Instance) -> socket.socket:
    """A non-blocking connection to the instance's keeper, started if need be. Blocks; call it in a thread. Raises Unavailable."""
    connected = _connect(instance)
    if connected is not None:
        return connected
    for directory in (instance.run, instance.logs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(instance.run / "keeper.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connected = _connect(instance)
        if connected is None:
            _start(instance)
            connected = _connect(instance)
    if connected is None:
        raise Unavailable(f"the keeper does not answer on {instance.keeper_socket}: see {_log(instance)}")
    return connected


def _connect(instance: Instance) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(os.fspath(instance.keeper_socket))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def own_build() -> str:
    """A name for the keeper's code as it lies on the disk: a keeper of another one is of another version."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.glob("runtime/*.py"), *package.glob("kernel/**/*.py")]):
        status = path.stat()
        digest.update(f"{path.relative_to(package)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def successor(instance: Instance, build: str) -> tuple[list[str], dict[str, str], int]:
    """What the holder is to execute: command without its last word, environment, and the program, for the caller to close."""
    command = [_interpreter(), "-I", "-S", "-c", _BOOT, _package_root(), os.fspath(instance.home), instance.id, build, "-1"]
    return command, _environment(), memfd.sealed_copy(command[0], "atoll-keeper")


def try_program() -> None:
    """Load the keeper's code in a process of its own. Raises Unavailable where that fails: no holder must become it then."""
    command = [_interpreter(), "-I", "-S", "-c", _LOAD, _package_root()]
    try:
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=TRY_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the keeper's code did not load within {TRY_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise Unavailable(f"the keeper's code does not load: {done.stderr.strip().rpartition(chr(10))[2]}")


def _interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _package_root() -> str:
    return str(Path(__file__).parents[2])


def _environment() -> dict[str, str]:
    """LD_LIBRARY_PATH serves builds of Python that look for libpython relative to themselves."""
    return {"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or "", "PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def _start(instance: Instance) -> None:
    interpreter = _interpreter()
    ready, ready_theirs = os.pipe2(os.O_CLOEXEC)
    sealed = memfd.sealed_copy(interpreter, "atoll-keeper")
    try:
        with open(_log(instance), "ab") as log:
            # argv[0] tells Python where its library is.
            process = subprocess.Popen(
                [
                    interpreter,
                    "-I",
                    "-S",
                    "-c",
                    _BOOT,
                    _package_root(),
                    os.fspath(instance.home),
                    instance.id,
                    own_build(),
                    str(ready_theirs),
                ],
                executable=f"/proc/self/fd/{sealed}",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                pass_fds=(ready_theirs, sealed),
                start_new_session=True,
            )
        os.close(ready_theirs)
        ready_theirs = -1
        process.wait(START_TIMEOUT_S)  # the first process ends at once, leaving the keeper behind as nobody's child
        if os.read(ready, 1) != b"1":
            raise Unavailable(f"the keeper did not start: see {_log(instance)}")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Unavailable(f"the keeper did not start within {START_TIMEOUT_S:.0f} s: see {_log(instance)}") from None
    finally:
        os.close(sealed)
        os.close(ready)
        if ready_theirs >= 0:
            os.close(ready_theirs)


def _log(instance: Instance) -> Path:
    return instance.logs / "keeper.log"
