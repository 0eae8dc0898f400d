"""What Atoll's long-lived processes share: a lock with a pid in it, a log, an event loop, and a byte that says "ready".

    outcome("engine", body)                               the process itself, whose body ends with
    alone(serve, "engine", home=..., pid_file=..., log=...)
    pid_of(instance.run / "engine.pid")                   whoever asks whether it lives
    spawn("atoll.node.daemon", log=..., home=...)         whoever starts it

A lock, not a pid alone, tells life: it goes with its process, however that ends. Imports stay few: the command line's quick path starts
engines.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from atoll.errors import AtollError, Conflict, Unavailable
from atoll.home import make_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path
    from typing import Any

UMASK = 0o022  # daemons': whoever started one may have none
LOG_MAX = 10 << 20  # bytes of a log before it is rotated, once
START_TIMEOUT_S = 60  # a first start compiles a seccomp filter and may wait for a slow disk
END_TIMEOUT_S = 30  # for a process whose ready pipe has closed to be gone
_YOUNG_OBJECTS = 20_000  # containers made and not freed, before a collection
LAST_WORDS = 2000  # bytes of a log shown when its process dies at the start


def outcome(what: str, body: Callable[[], None]) -> int:
    """The exit status of a daemon that runs BODY. What goes wrong is said on stderr; the log has the traceback where nobody foresaw it."""
    import sys

    try:
        body()
    except AtollError as error:
        sys.stderr.write(f"atoll: {error}\n")
        return 1
    except Exception as error:
        import logging

        logging.getLogger("atoll").exception("the %s failed", what)
        sys.stderr.write(f"atoll: the {what} failed: {error!r}\n")
        return 1
    return 0


def alone(main: Callable[[], Coroutine[Any, Any, None]], what: str, *, home: Path, pid_file: Path, log: Path) -> None:
    """Run MAIN to its end, as the one process that holds PID_FILE, with what it logs in LOG. Raises Forbidden, Conflict."""
    settle(home)
    with sole(pid_file, what):
        set_up_logging(log)
        run(main())


def settle(home: Path) -> None:
    """What a daemon does first: a umask of its own, and its HOME there and nobody else's. Raises Forbidden."""
    os.umask(UMASK)
    make_home(os.fspath(home))


@contextmanager
def sole(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of PATH, with our pid in it. Raises Conflict naming the process that has it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(f"another {what} holds {path} already: process {holder}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def pid_of(path: str | Path) -> int | None:
    """The process that holds PATH's lock; None where none lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(fd, 32, 0) or b"0") or None
    finally:
        os.close(fd)
    return None


def end(pid: int | None, timeout_s: float = END_TIMEOUT_S) -> None:
    """Ask a process to end, and kill it where it does not in time. None, or one that has gone, is no error."""
    import select
    import signal

    if pid is None:
        return
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], timeout_s)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], timeout_s)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def set_up_logging(path: Path) -> None:
    """One line an event, to PATH, which is rotated once."""
    import logging
    import logging.handlers

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_MAX, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def arguments(program: str, description: str) -> argparse.ArgumentParser:
    """A parser with `--ready-fd`, which every such process has."""
    import argparse

    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--ready-fd", type=int, help="descriptor that gets one byte when the process answers")
    return parser


def ready_fd(words: list[str], program: str, description: str) -> int | None:
    """The value of `--ready-fd`, for a process that has no other flag."""
    value = arguments(program, description).parse_args(words).ready_fd
    return None if value is None else int(value)


def tell_ready(fd: int | None) -> None:
    if fd is not None:
        os.write(fd, b"1")
        os.close(fd)


def on_end(act: Callable[[], None]) -> None:
    """Have the running loop call ACT on TERM and INT, which end the process no more."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run MAIN to its end, on uvloop where it is there (its wheel is not, for every platform)."""
    import asyncio

    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


@contextmanager
def loading() -> Iterator[None]:
    """While a server loads what it keeps for long, look for no cycles; afterwards leave what is there alone, and look seldom.

    Ten thousand stored objects load in half the time. A request makes hundreds of containers, which their counts free; at the default
    threshold of 700 a tenth of its time goes into walking them.
    """
    import gc

    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
        gc.enable()


def spawn(module: str, *, log: str | Path, home: str | Path, interpreter: str, words: Sequence[str] = ()) -> None:
    """Start MODULE, with WORDS for it, in the background. Returns when it has said, by a pipe, that it is ready: nothing is polled.

    Raises Unavailable with its last words where it does not come up, Forbidden for a HOME that others may write to.
    """
    import select
    import subprocess

    make_home(os.fspath(home))
    os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
    ready, done = os.pipe()
    try:
        with open(log, "ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                [interpreter, "-P", "-m", module, "--ready-fd", str(done), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(done,),
                start_new_session=True,
                cwd="/",
                env={**os.environ, "ATOLL_HOME": str(home)},
            )
    finally:
        os.close(done)
    try:
        answered, _, _ = select.select([ready], [], [], START_TIMEOUT_S)
        if answered and os.read(ready, 1):
            return
    finally:
        os.close(ready)
    # A pipe that closed without a byte: the process is on its way out.
    state = f"ended with status {process.wait(END_TIMEOUT_S)}" if answered else "did not answer in time"
    with open(log, "rb") as written:
        written.seek(begin)
        words = written.read()[-LAST_WORDS:].decode(errors="replace").strip()
    raise Unavailable(f"{module} {state}" + (f":\n{words}" if words else "") + f"\nIts log: {log}")
