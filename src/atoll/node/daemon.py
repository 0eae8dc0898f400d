"""The node's process: `python -m atoll.node.daemon` serves the engine's socket until it is told to go.

It is ready when the socket answers; its pid stands in run/engine.pid, whose lock says that it lives: a second daemon of the same instance
names the first and ends. TERM and INT end it gracefully; containers stay with their keeper, and the next daemon finds them again.
`POST /atoll/engine/stop` ends it and them. `--ready-fd N` gets one byte when the socket answers, so that nobody need poll for it; `--host`
and `--tls...` say where else to listen, instead of what engine.toml says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys

from atoll import process
from atoll.config import Instance
from atoll.engine import Engine
from atoll.engine.edge import Edge, on_error
from atoll.engine.listening import Listening
from atoll.http import Limits, Request, Response, Server, TlsGate
from atoll.kernel import memory
from atoll.node.leisure import Leisure
from atoll.node.membership import Membership

CLOSE_GRACE_S = 3.0
HEAPS = 2  # one thread runs Python at a time; what allocates beside it does so seldom

log = logging.getLogger("atoll.node")


async def serve(instance: Instance, ready: int | None = None, listening: Listening | None = None) -> None:
    """Runs the engine and its server until TERM, INT or a request to stop."""
    stop = asyncio.Event()
    everything = False

    async def stop_all(_: Request) -> Response:
        nonlocal everything
        everything = True
        stop.set()
        return Response(202)

    process.on_end(stop.set)
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine(instance)
        stack.push_async_callback(engine.close)
        await engine.start()
        engine.router.add("POST", "/atoll/engine/stop", stop_all)
        membership = Membership(engine, instance)
        membership.add_routes(engine.router)
        stack.push_async_callback(membership.close)
        leisure = Leisure(memory.give_back)
        stack.callback(leisure.close)
        server = Server(Edge(engine.router, on_done=leisure.note), limits=Limits(), on_error=on_error)
        stack.push_async_callback(server.close, CLOSE_GRACE_S)
        stack.callback(engine.events.close)  # first of all: open /events requests would hold the server up
        await server.start_unix(instance.engine_socket)
        await _listen(stack, engine, server, leisure, listening or engine.services.settings.listening)
        log.info("engine %s is ready on %s", instance.id, instance.engine_socket)
        process.tell_ready(ready)
        await membership.resume()
        leisure.note()
        await stop.wait()
        log.info("engine %s goes; containers %s", instance.id, "go with it" if everything else "stay")
        if everything:
            await membership.rest()  # the kubelet goes before what it stands on
            await engine.shut_down()


async def _listen(stack: contextlib.AsyncExitStack, engine: Engine, server: Server, leisure: Leisure, listening: Listening) -> None:
    for path in listening.sockets:
        await server.start_unix(path)
    if not listening.addresses:
        return
    remote = Server(Edge(engine.router, listening.names(), leisure.note), limits=Limits(), on_error=on_error)
    gate = TlsGate(remote, listening.context())
    stack.push_async_callback(gate.close)
    stack.push_async_callback(remote.close, CLOSE_GRACE_S)
    stack.callback(engine.events.close)
    for host, port in listening.addresses:
        log.info("clients with certificates are let in on %s:%d", host, await gate.start(host, port))


def _arguments(words: list[str]) -> tuple[int | None, Listening | None]:
    parser = process.arguments("atoll.node.daemon", "Serve the engine of the instance ATOLL_HOME names.")
    parser.add_argument("--host", action="append", default=[], help="address to listen on: unix:///path or tcp://address:port")
    for name in ("tlscacert", "tlscert", "tlskey"):
        parser.add_argument(f"--{name}", help="file of PEM, for tcp")
    found = parser.parse_args(words)
    chosen = Listening.of(found.host, found.tlscacert, found.tlscert, found.tlskey) if found.host else None
    return found.ready_fd, chosen


def _run() -> None:
    ready, listening = _arguments(sys.argv[1:])
    instance = Instance.from_environment()
    memory.share_heaps(HEAPS)
    process.alone(
        lambda: serve(instance, ready, listening),
        "engine",
        home=instance.home,
        pid_file=instance.run / "engine.pid",
        log=instance.logs / "engine.log",
    )


def main() -> int:
    return process.outcome("engine", _run)


if __name__ == "__main__":
    sys.exit(main())
