"""The client's ssh agent within a step (moby.sshforward.v1.SSH): a socket of ours whose every connection is carried to the client.

Keys stay where they are: what passes are the agent protocol's questions and signatures.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Call, OutgoingCall, RpcError
from atoll.build.buildkit.sessions import Session
from atoll.build.client import SOCKET
from atoll.http import Disconnected, Duplex
from atoll.http.stream import listen_unix

CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
NAME_KEY = "buildkit.ssh.id"


@asynccontextmanager
async def agent(session: Session, name: str, run: Path) -> AsyncIterator[Path | None]:
    """A socket below RUN that leads to the client's agent NAME, while the block runs; None where the client offers none of that name."""
    if not await _is_offered(session, name):
        yield None
        return
    directory = _directory(run)
    try:
        async with listen_unix(directory / SOCKET, lambda stream: _carry(session, name, stream)):
            yield directory / SOCKET
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _directory(run: Path) -> Path:
    run.mkdir(exist_ok=True, mode=0o700)
    return Path(tempfile.mkdtemp(dir=run))


async def _is_offered(session: Session, name: str) -> bool:
    if not session.serves(FORWARD):
        return False
    try:
        await session.channel.unary(CHECK, messages.CheckAgentRequest(ID=name), messages.CheckAgentResponse)
    except RpcError:
        return False
    return True


async def _carry(session: Session, name: str, stream: Duplex) -> None:
    """Both ways, until either side ends."""
    with contextlib.suppress(Disconnected, RpcError):
        async with session.channel.call(FORWARD, [(NAME_KEY, name)]) as call:
            await pipe(stream, call)


async def pipe(stream: Duplex, call: Call) -> None:
    """What STREAM has to CALL and back, until the call ends. Raises Disconnected, RpcError."""
    there = asyncio.create_task(_outwards(stream, call), name="stream to a call")
    try:
        while (message := await call.receive(messages.BytesMessage)) is not None:
            stream.write(message.data)
            await stream.drain()
        stream.write_eof()
    finally:
        there.cancel()
        await asyncio.gather(there, return_exceptions=True)


async def _outwards(stream: Duplex, call: Call) -> None:
    while data := await stream.read():
        await call.send(messages.BytesMessage(data=data))
    if isinstance(call, OutgoingCall):
        call.write_eof()
