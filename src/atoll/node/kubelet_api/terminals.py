"""exec and attach, as kubectl and the client libraries speak them: WebSocket channels (v5, v4) and SPDY/3.1 streams (v4).

Both carry the same five things: stdin, stdout, stderr, an error channel with the final Status, and resizes. `Terminal` is what the engine
session is joined to; the two transports differ only in how bytes come and go (KEP-4006; pkg/kubelet/cri/streaming/remotecommand).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from atoll.engine import Engine
from atoll.engine.streams import Session
from atoll.errors import AtollError, InvalidInput
from atoll.http import Request, spdy, websocket
from atoll.http.errors import Disconnected, ProtocolError
from atoll.runtime import StartFailed

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
WEBSOCKET_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io")
STREAMS_S = 30.0  # kubelet's stream creation timeout
_CHANNELS = {"stdout": STDOUT, "stderr": STDERR}

Resize = Callable[[int, int], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def parse(cls, request: Request) -> Wanted:
        query = request.query
        tty = query.flag("tty")
        wanted = cls(query.flag("input"), query.flag("output"), query.flag("error") and not tty, tty)
        if not (wanted.stdin or wanted.stdout or wanted.stderr):
            raise InvalidInput("you must specify at least 1 of stdin, stdout, stderr")
        return wanted


class Terminal(Protocol):
    """The client's side."""

    async def read_input(self) -> bytes | None:
        """Typed bytes; None when the client has ended its input; Disconnected when it has gone."""
        ...

    async def write(self, stream: str, data: bytes) -> None: ...
    async def resizes(self, resize: Resize) -> None: ...
    async def finish(self, status: dict[str, Any]) -> None: ...
    async def close(self) -> None: ...


async def serve_exec(request: Request, engine: Engine, container_id: str) -> None:
    command = request.query.getall("command")
    if not command:
        raise InvalidInput("you must specify at least 1 command")
    wanted = Wanted.parse(request)
    body = {
        "Cmd": command,
        "Tty": wanted.tty,
        "AttachStdin": wanted.stdin,
        "AttachStdout": wanted.stdout,
        "AttachStderr": wanted.stderr,
    }
    exec_id = await engine.exec.create(container_id, body)
    terminal = await accept(request, wanted)
    try:
        session = await engine.exec.start(exec_id)
    except AtollError as error:
        code = error.exit_code if isinstance(error, StartFailed) else 126
        await _finish(terminal, failure(f"error executing command in container: {error}", code if isinstance(error, StartFailed) else None))
        return
    assert session is not None

    async def resize(width: int, height: int) -> None:
        with contextlib.suppress(AtollError):
            await engine.exec.resize(exec_id, width, height)

    ended = engine.exec.get(exec_id).ended
    try:
        await _join(terminal, session, wanted, resize)
        code = await ended
    except Disconnected:
        log.info("exec %s: the client has gone", exec_id[:12])
        return
    finally:
        session.close()
        await asyncio.shield(_close(terminal)) if not ended.done() else None
    await _finish(terminal, success() if code == 0 else failure(f"command terminated with non-zero exit code: exit status {code}", code))


async def serve_attach(request: Request, engine: Engine, container_id: str) -> None:
    wanted = Wanted.parse(request)
    terminal = await accept(request, wanted)
    session = await engine.containers.attach(container_id, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr)

    async def resize(width: int, height: int) -> None:
        with contextlib.suppress(AtollError):
            await engine.containers.resize(container_id, width, height)

    try:
        await _join(terminal, session, wanted, resize)
    except Disconnected:
        log.info("attach to %s: the client has gone", container_id[:12])
        return
    finally:
        engine.containers.detach(container_id, session)
    await _finish(terminal, success())


async def _join(terminal: Terminal, session: Session, wanted: Wanted, resize: Resize) -> None:
    """Until the process has said all. Raises Disconnected when the client goes first."""
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def feed() -> None:
        try:
            while (data := await terminal.read_input()) is not None:
                if not await session.send(data):
                    break
            session.close_input()
        except (Disconnected, ProtocolError) as error:
            if not gone.done():
                gone.set_exception(Disconnected(str(error)))

    async def show() -> None:
        async for stream, data in session.output():
            await terminal.write(stream, data)

    feeding = asyncio.create_task(feed(), name="terminal input")
    resizing = asyncio.create_task(terminal.resizes(resize), name="terminal size")
    showing = asyncio.create_task(show(), name="terminal output")
    try:
        await asyncio.wait((showing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not showing.done():
            gone.result()
        showing.result()
    finally:
        if gone.done():
            gone.exception()
        for task in (feeding, resizing, showing):
            task.cancel()
        await asyncio.gather(feeding, resizing, showing, return_exceptions=True)


async def _finish(terminal: Terminal, status: dict[str, Any]) -> None:
    with contextlib.suppress(Disconnected, ProtocolError):
        await terminal.finish(status)
    await _close(terminal)


async def _close(terminal: Terminal) -> None:
    with contextlib.suppress(Disconnected, ProtocolError):
        await terminal.close()


def success() -> dict[str, Any]:
    return {"metadata": {}, "status": "Success"}


def failure(message: str, code: int | None) -> dict[str, Any]:
    """The Status from which clients take the exit code."""
    status: dict[str, Any] = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    if code is None:
        return status
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode", "details": {"causes": causes}}


async def accept(request: Request, wanted: Wanted) -> Terminal:
    """Upgrade the request to whichever of the two the client asks for. Raises InvalidInput."""
    upgrade = (request.upgrade_token or "").lower()
    if upgrade == "websocket":
        return _WebSocketTerminal(await websocket.accept(request, WEBSOCKET_PROTOCOLS), wanted)
    session, _ = await spdy.accept(request, SPDY_PROTOCOLS)
    terminal = _SpdyTerminal(session)
    try:
        await terminal.open(wanted)
    except TimeoutError:
        await session.close()
        raise InvalidInput("timed out waiting for the client's streams") from None
    return terminal


class _WebSocketTerminal:
    """One channel number before each message."""

    def __init__(self, socket: websocket.WebSocket, wanted: Wanted) -> None:
        self._socket = socket
        self._input: asyncio.Queue[bytes | Disconnected | None] = asyncio.Queue(16)
        self._sizes: asyncio.Queue[bytes] = asyncio.Queue(16)
        self._reader = asyncio.create_task(self._read(), name="websocket channels")

    async def _read(self) -> None:
        try:
            while (message := await self._socket.receive()) is not None:
                if not message:
                    continue
                channel, data = message[0], message[1:]
                if channel == STDIN and data:
                    await self._input.put(data)
                elif channel == RESIZE:
                    await self._sizes.put(data)
                elif channel == CLOSE and data[:1] == bytes((STDIN,)):  # v5: this channel has ended
                    await self._input.put(None)
            await self._input.put(Disconnected("the client has closed its WebSocket"))
        except (Disconnected, ProtocolError) as error:
            await self._input.put(Disconnected(str(error)))

    async def read_input(self) -> bytes | None:
        item = await self._input.get()
        if isinstance(item, Disconnected):
            raise item
        return item

    async def write(self, stream: str, data: bytes) -> None:
        await self._socket.send(bytes((_CHANNELS[stream],)) + data)

    async def resizes(self, resize: Resize) -> None:
        while True:
            await _resize(await self._sizes.get(), resize)

    async def finish(self, status: dict[str, Any]) -> None:
        await self._socket.send(bytes((ERROR,)) + orjson.dumps(status))

    async def close(self) -> None:
        await self._socket.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


class _SpdyTerminal:
    """One stream for each thing, told apart by its streamType header."""

    def __init__(self, session: spdy.Session) -> None:
        self._session = session
        self._streams: dict[str, spdy.SpdyStream] = {}

    async def open(self, wanted: Wanted) -> None:
        """Wait for the streams the client must open."""
        needed = (
            {"error"} | {name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)} | ({"resize"} if wanted.tty else set())
        )
        async with asyncio.timeout(STREAMS_S):
            async for stream in self._session.incoming():
                self._streams[(stream.headers.get("streamtype") or "").lower()] = stream
                if needed <= set(self._streams):
                    return
        raise InvalidInput("the client ended its session before it opened its streams")

    async def read_input(self) -> bytes | None:
        stream = self._streams.get("stdin")
        if stream is None:
            async for _ in self._session.incoming():
                pass
            raise Disconnected("the client has closed its session")
        return await stream.read() or None

    async def write(self, stream: str, data: bytes) -> None:
        target = self._streams[stream]
        target.write(data)
        await target.drain()

    async def resizes(self, resize: Resize) -> None:
        stream = self._streams.get("resize")
        if stream is None:
            return
        rest = b""
        while data := await stream.read():
            *whole, rest = (rest + data).replace(b"}", b"}\n").split(b"\n")
            for line in whole:
                if line.strip():
                    await _resize(line, resize)

    async def finish(self, status: dict[str, Any]) -> None:
        for name in ("stdout", "stderr"):
            if name in self._streams:
                self._streams[name].write_eof()
        stream = self._streams["error"]
        stream.write(orjson.dumps(status))
        await stream.drain()
        stream.write_eof()

    async def close(self) -> None:
        await self._session.close()


async def _resize(data: bytes, resize: Resize) -> None:
    """{"Width": 80, "Height": 24}"""
    try:
        size = orjson.loads(data)
        width, height = int(size["Width"]), int(size["Height"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return
    if 0 < width < 65536 and 0 < height < 65536:
        await resize(width, height)
