"""The node's process: `python -m atoll.node.daemon` serves the engine's socket until it is told to go.

It is ready when the socket answers; its pid stands in run/engine.pid, whose lock says that it lives: a second daemon of the same instance
names the first and ends. TERM and INT end it gracefully; containers stay with their keeper, and the next daemon finds them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.config import Instance
from atoll.engine import Engine
from atoll.engine.edge import Edge, on_error
from atoll.errors import AtollError, Conflict
from atoll.http import Limits, Server

LOG_MAX = 10 << 20  # bytes of engine.log before it is rotated, once
CLOSE_GRACE_S = 3.0

log = logging.getLogger("atoll.node")


@contextmanager
def only_daemon(instance: Instance) -> Iterator[None]:
    """Holds the instance's lock, with our pid in it. Raises Conflict naming the process that has it."""
    instance.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(instance.run / "engine.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(f"another engine runs on {instance.home} already: process {holder}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def set_up_logging(directory: Path) -> None:
    """To logs/engine.log, one line an event."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(directory / "engine.log", maxBytes=LOG_MAX, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


async def serve(instance: Instance) -> None:
    """Runs the engine and its server until TERM or INT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine(instance)
        stack.push_async_callback(engine.close)
        await engine.start()
        server = Server(Edge(engine.router), limits=Limits(), on_error=on_error)
        stack.push_async_callback(server.close, CLOSE_GRACE_S)
        stack.callback(engine.events.close)  # first of all: open /events requests would hold the server up
        await server.start_unix(instance.engine_socket)
        log.info("engine %s is ready on %s", instance.id, instance.engine_socket)
        await stop.wait()
        log.info("engine %s goes; containers stay", instance.id)


def main() -> int:
    try:
        instance = Instance.from_environment()
        with only_daemon(instance):
            set_up_logging(instance.logs)
            run(instance)
    except AtollError as error:
        sys.stderr.write(f"atoll: {error}\n")
        return 1
    return 0


def run(instance: Instance) -> None:
    try:
        import uvloop
    except ImportError:  # the wheel is not there for every platform
        asyncio.run(serve(instance))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(instance))


if __name__ == "__main__":
    sys.exit(main())
