"""The node's process: `python -m atoll.node.daemon` serves the engine's socket until it is told to go.

It is ready when the socket answers; its pid stands in run/engine.pid, whose lock says that it lives: a second daemon of the same instance
names the first and ends. TERM and INT end it gracefully; containers stay with their keeper, and the next daemon finds them again.
`POST /atoll/engine/stop` ends it and them. `--ready-fd N` gets one byte when the socket answers, so that nobody need poll for it.
"""

from __future__ import annotations

import argparse
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
from atoll.http import Limits, Request, Response, Server
from atoll.node.membership import Membership

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


async def serve(instance: Instance, ready: int | None = None) -> None:
    """Runs the engine and its server until TERM, INT or a request to stop."""
    stop = asyncio.Event()
    everything = False

    async def stop_all(_: Request) -> Response:
        nonlocal everything
        everything = True
        stop.set()
        return Response(202)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine(instance)
        stack.push_async_callback(engine.close)
        await engine.start()
        engine.router.add("POST", "/atoll/engine/stop", stop_all)
        membership = Membership(engine, instance)
        membership.add_routes(engine.router)
        stack.push_async_callback(membership.close)
        server = Server(Edge(engine.router), limits=Limits(), on_error=on_error)
        stack.push_async_callback(server.close, CLOSE_GRACE_S)
        stack.callback(engine.events.close)  # first of all: open /events requests would hold the server up
        await server.start_unix(instance.engine_socket)
        log.info("engine %s is ready on %s", instance.id, instance.engine_socket)
        if ready is not None:
            os.write(ready, b"1")
            os.close(ready)
        await membership.resume()
        await stop.wait()
        log.info("engine %s goes; containers %s", instance.id, "go with it" if everything else "stay")
        await membership.close()  # the kubelet goes before what it stands on
        if everything:
            await engine.shut_down()


def main() -> int:
    try:
        arguments = parse(sys.argv[1:])
        instance = Instance.from_environment()
        with only_daemon(instance):
            set_up_logging(instance.logs)
            run(instance, arguments.ready_fd)
    except AtollError as error:
        sys.stderr.write(f"atoll: {error}\n")
        return 1
    except Exception as error:
        log.exception("the engine failed")
        sys.stderr.write(f"atoll: the engine failed: {error!r}: see {instance.logs / 'engine.log'}\n")
        return 1
    return 0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="atoll.node.daemon", description="Serve the engine of the instance ATOLL_HOME names.")
    parser.add_argument("--ready-fd", type=int, help="descriptor that gets one byte when the engine answers")
    return parser.parse_args(words)


def run(instance: Instance, ready: int | None) -> None:
    try:
        import uvloop
    except ImportError:  # the wheel is not there for every platform
        asyncio.run(serve(instance, ready))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(instance, ready))


if __name__ == "__main__":
    sys.exit(main())
