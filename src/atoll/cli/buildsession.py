"""What `atoll build --secret` and `--ssh` give to a build: a BuildKit session beside the classic /build, served while the build runs.

The engine calls back on it for a secret or for the ssh agent when a step needs one, as it does with docker's clients: one mechanism, and
values that go to memory only. A thread serves it, since the command itself waits for the build's lines.
"""

from __future__ import annotations

import asyncio
import os
import threading
from _socket import socket as raw_socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from socket import socket
from uuid import uuid4

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Call, Code, RpcError, Services, unary
from atoll.build.buildkit.sessions import SECRETS_METHOD
from atoll.build.buildkit.ssh import CHECK, FORWARD, NAME_KEY, pipe
from atoll.cli.flags import UsageError
from atoll.cli.session import CommandFailed
from atoll.cli.wire import Engine
from atoll.http import connect_unix, from_socket
from atoll.http.http2 import Http2

METHODS = (SECRETS_METHOD, CHECK, FORWARD)
DEFAULT_AGENT = "default"
HEAD_MAX = 1 << 16  # bytes of the answer to an upgrade


@dataclass(frozen=True, slots=True)
class Secret:
    """From a variable or a file; read when it is asked for."""

    variable: str
    path: str

    @classmethod
    def parse(cls, text: str) -> tuple[str, Secret]:
        """`id=NAME[,env=VARIABLE|,src=FILE]`; without either, the variable NAME, or the file. Raises UsageError."""
        words = dict(word.partition("=")[::2] for word in text.split(","))
        name, kind = words.pop("id", ""), words.pop("type", "")
        path = words.pop("src", "") or words.pop("source", "")
        variable = words.pop("env", "")
        if kind == "env" and not variable:
            path, variable = "", path
        if not name or words or kind not in ("", "file", "env"):
            raise UsageError(f"invalid secret {text!r}: write id=NAME,src=FILE or id=NAME,env=VARIABLE")
        if not variable and not path:
            path, variable = ("", name) if name in os.environ else (name, "")
        if variable and variable not in os.environ:
            raise CommandFailed(f"secret {name}: the variable {variable} is not set")
        if path and not os.path.isfile(path):
            raise CommandFailed(f"secret {name}: there is no file {path}")
        return name, cls(variable, path)

    def read(self) -> bytes:
        if self.variable:
            return os.environb[os.fsencode(self.variable)]
        with open(self.path, "rb") as file:
            return file.read()


def agent_socket(text: str) -> tuple[str, str]:
    """`default` or `NAME=SOCKET`: the agent's name, and its socket. Raises UsageError, CommandFailed."""
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not name:
        raise UsageError(f"invalid ssh agent {text!r}: write default or NAME=SOCKET")
    if not path:
        raise CommandFailed("no ssh agent is running: SSH_AUTH_SOCK is not set. Start one with: eval $(ssh-agent)")
    if not os.path.exists(path):
        raise CommandFailed(f"ssh {name}: there is no agent's socket {path}")
    return name, path


@contextmanager
def session(engine: Engine, secrets: Sequence[str], agents: Sequence[str]) -> Iterator[str]:
    """A session that offers SECRETS and AGENTS, by its id, while the block runs. Raises UsageError, CommandFailed."""
    offer = _Offer(dict(Secret.parse(text) for text in secrets), dict(agent_socket(text) for text in agents))
    identity = uuid4().hex
    connection = _connected(engine, identity)
    loop = asyncio.new_event_loop()
    work = loop.create_task(offer.serve(connection), name="session of a build")
    thread = threading.Thread(target=_run, args=(loop, work), name="session of a build")
    thread.start()
    try:
        yield identity
    finally:
        loop.call_soon_threadsafe(work.cancel)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(asyncio.wait([work]))
    finally:
        loop.close()


def _connected(engine: Engine, identity: str) -> socket:
    """A connection that has become a session."""
    raw = engine.connect()
    if not isinstance(raw, raw_socket):
        raise CommandFailed(f"the engine at {engine.address} cannot be given secrets or ssh agents: reach it by a unix socket")
    fields = {"Host": "atoll", "Connection": "Upgrade", "Upgrade": "h2c", "X-Docker-Expose-Session-Uuid": identity}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head += "".join(f"X-Docker-Expose-Session-Grpc-Method: {method}\r\n" for method in METHODS)
    raw.sendall(f"POST /session HTTP/1.1\r\n{head}\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and len(answer) < HEAD_MAX:
        byte = raw.recv(1)  # not a byte of what follows
        if not byte:
            break
        answer += byte
    if not answer.startswith(b"HTTP/1.1 101"):
        raise CommandFailed(f"the engine at {engine.address} takes no sessions: {answer.decode('latin-1').splitlines()[:1]}")
    return socket(fileno=raw.detach())


class _Offer:
    """The services of the session."""

    def __init__(self, secrets: dict[str, Secret], agents: dict[str, str]) -> None:
        self._secrets = secrets
        self._agents = agents

    async def serve(self, connection: socket) -> None:
        methods = {
            SECRETS_METHOD: unary(messages.GetSecretRequest, self._secret),
            CHECK: unary(messages.CheckAgentRequest, self._check),
            FORWARD: self._forward,
        }
        async with Http2(await from_socket(connection), client=False) as served:
            await Services(methods).serve(served)

    async def _secret(self, request: object, _: Call) -> object:
        name = request.ID  # type: ignore[attr-defined]  # a message of protobuf's
        if name not in self._secrets:
            raise RpcError(Code.NOT_FOUND, f"secret {name}: not found")
        return messages.GetSecretResponse(data=self._secrets[name].read())

    async def _check(self, request: object, _: Call) -> object:
        self._path(request.ID)  # type: ignore[attr-defined]
        return messages.CheckAgentResponse()

    def _path(self, name: str) -> str:
        try:
            return self._agents[name or DEFAULT_AGENT]
        except KeyError:
            raise RpcError(Code.NOT_FOUND, f"no ssh agent {name} is offered") from None

    async def _forward(self, call: Call) -> None:
        stream = await connect_unix(self._path(call.metadata.get(NAME_KEY, "")))
        try:
            await pipe(stream, call)
        finally:
            stream.close()
