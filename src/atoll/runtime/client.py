"""`Runtime`: the asyncio client of the keeper, which it starts when none runs.

Every call is one request and its reply on a single seqpacket connection; the keeper answers in any order. The keeper outlives this
process: after a restart `connect` finds it again, `list` tells what runs and what has ended meanwhile, and `wait` answers for both.

When the keeper itself dies, its successor has its containers a few milliseconds later, and calls under way are made again: whoever waits,
starts or stops does not notice. A start has a name of its own for that, so that it happens once. Only an exec, which may have begun,
fails with KeeperLost; who was attached sees the end of the stream, with `Attach.is_lost` set.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from weakref import WeakSet

from atoll.config import Instance
from atoll.errors import AtollError, Conflict, InvalidInput, NotFound, NotSupported, SystemFailure, Unavailable
from atoll.runtime import protocol
from atoll.runtime.attach import Attach
from atoll.runtime.errors import CommandNotExecutable, CommandNotFound, KeeperLost, StartFailed
from atoll.runtime.spawn import open_connection, own_build, successor, try_program
from atoll.runtime.types import ExitStatus, OtherRuntime, Overlay, RuntimeState

ATTEMPTS = 5  # at a call, while keepers come and go
STOP_TIMEOUT_S = 10.0  # for an idle keeper to take itself away

_ERRORS: dict[str, type[AtollError]] = {
    "conflict": Conflict,
    "invalid": InvalidInput,
    "not-found": NotFound,
    "not-supported": NotSupported,
    "start-failed": StartFailed,
    "command-not-found": CommandNotFound,
    "command-not-executable": CommandNotExecutable,
}
_ONCE = frozenset(("exec", "shutdown"))  # not to be sent again where a keeper that has died may have done it


class _NotSent(KeeperLost):
    """The request has not reached the keeper."""


class Runtime:
    """Containers of one instance. All methods raise KeeperLost when the keeper goes away, NotFound for an id it does not know."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.on_exit: list[Callable[[ExitStatus], None]] = []  # called on the loop for each exit, of execs too; must not block
        self._socket: socket.socket | None = None
        self._connecting = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._gone = asyncio.Event()  # the connection of now has ended
        self._writable: asyncio.Future[None] | None = None  # who sends waits for room in the socket
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self.losses = 0  # how many keepers have gone away from under this client
        self._on_loss: asyncio.Future[None] | None = None
        self._hello: dict[str, Any] = {}  # what the keeper has said of itself
        self._attached: WeakSet[Attach] = WeakSet()  # in the hands of the keeper of now

    async def connect(self) -> None:
        """Connect to the keeper, starting it if none runs. Safe against other processes doing the same."""
        async with self._connecting:
            if self._socket is not None:
                return
            for attempt in range(ATTEMPTS):
                sock = await asyncio.get_running_loop().run_in_executor(None, open_connection, self.instance)
                self._socket = sock
                self._gone.clear()
                asyncio.get_running_loop().add_reader(sock, self._readable)
                try:
                    hello = await self._request({"op": "hello", "version": protocol.VERSION}, None)
                    break
                except KeeperLost:  # a dying keeper's socket may still accept
                    if attempt == ATTEMPTS - 1:
                        raise
        if hello["version"] < protocol.OLDEST:
            self._lost()
            raise Unavailable(
                f"the keeper (pid {hello['pid']}) speaks protocol {hello['version']}, this engine needs {protocol.OLDEST} at least: "
                "stop the containers and run `atoll engine stop` once"
            )
        self._hello = hello

    async def renew(self) -> bool:
        """Have a keeper of other code than ours followed by one of ours; its containers run on. Whether that was needed.

        Raises Unavailable where our code does not load, or the keeper is too old to be followed while it has containers; it then goes on.
        """
        await self.connect()
        build = await asyncio.to_thread(own_build)
        if self._hello.get("build") == build:
            return False
        if self._hello["version"] < protocol.RENEWING:
            if await self.list():
                raise Unavailable(f"the keeper (pid {self._hello['pid']}) is too old to be renewed while it has containers")
            await self.stop_keeper()
        else:
            await asyncio.to_thread(try_program)
            command, environment, program = await asyncio.to_thread(successor, self.instance, build)
            try:
                await self._call("renew", command=command, environment=environment, descriptors=(program,))
            finally:
                os.close(program)
            await asyncio.wait_for(self._gone.wait(), STOP_TIMEOUT_S)
        await self.connect()
        return True

    async def close(self) -> None:
        """Leave the keeper and its containers running."""
        self._lost()

    async def stop_keeper(self) -> None:
        """End the keeper and leave. Raises Conflict while it has containers, exited ones included: `delete` them first."""
        await self._call("shutdown")
        if self._socket is not None:
            await asyncio.wait_for(self._gone.wait(), STOP_TIMEOUT_S)

    def expect(self, container: str, namespaces: Iterable[str]) -> None:
        """A hint that `start` comes within EXPECTED_S, for a container whose own `namespaces` (OCI types) are these: it is then quicker."""
        if self._socket is None or self._hello.get("version", 0) < protocol.EXPECTING:
            return
        with contextlib.suppress(OSError):  # full, or gone: the start is told
            kinds = [{"type": kind} for kind in namespaces]
            protocol.send(self._socket, {"op": "expect", "container": container, "namespaces": kinds})

    async def start(
        self,
        container: str,
        bundle: Path,
        *,
        rootfs: Overlay | None = None,
        log: Path | None = None,
        log_max_size: int | None = None,
        log_max_files: int | None = None,
        stdin: bool = False,
        stdin_once: bool = True,
        attach: Attach | None = None,
        runtime: OtherRuntime | None = None,
    ) -> int:
        """Start the container described by `bundle`/config.json (OCI runtime-spec 1.2); returns its pid once execve has succeeded.

        `rootfs` is mounted by the container, invisible to the host; without it the spec's `root.path` is used as it is. `log` is written
        in CRI format and rotated to `<log>.1`, `.2` ... when it exceeds `log_max_size` bytes, keeping `log_max_files` in all. `stdin`
        keeps a pipe (or the terminal) open for attachments; with `stdin_once` it is closed after the first of them has ended. The exit is
        also written to `bundle`/exit.json. With `runtime` another OCI runtime does the work. Raises CommandNotFound, CommandNotExecutable,
        StartFailed, Conflict (the id is taken).
        """
        fields: dict[str, Any] = {"container": container, "bundle": str(bundle), "stdin": stdin, "stdin_once": stdin_once}
        fields["attempt"] = secrets.token_hex(8)
        if rootfs is not None:
            fields["rootfs"] = {"lower": [str(path) for path in rootfs.lower], "upper": str(rootfs.upper), "work": str(rootfs.work)}
        if runtime is not None:
            states = self.instance.run / "oci" / runtime.name
            fields["runtime"] = {"name": runtime.name, "path": str(runtime.path), "root": str(states), "sockets": str(self.instance.run)}
        if log is not None:
            fields["log"] = {"path": str(log), "max_size": log_max_size, "max_files": log_max_files}
        return int((await self._call("start", attach, **fields))["pid"])

    async def exec(
        self, container: str, exec_id: str, process: dict[str, Any], *, stdin: bool = False, attach: Attach | None = None
    ) -> int:
        """Run the OCI `process` in a running container; returns its pid once execve has succeeded. Raises as `start` does."""
        return int((await self._call("exec", attach, container=container, exec=exec_id, process=process, stdin=stdin))["pid"])

    async def attach(self, container: str, exec_id: str | None, attach: Attach) -> None:
        """Join the running process's stdio from now on. Raises NotFound, Conflict (it has ended)."""
        await self._call("attach", attach, container=container, exec=exec_id)

    async def resize(self, container: str, exec_id: str | None, width: int, height: int) -> None:
        """Raises InvalidInput when the process has no terminal."""
        await self._call("resize", container=container, exec=exec_id, width=width, height=height)

    async def signal(self, container: str, signum: int, *, exec_id: str | None = None, all: bool = False) -> None:  # noqa: A002 - the word kill(1) and runc use
        """Send a signal to the main process, to an exec, or with `all` to every process of the container.."""
        await self._call("signal", container=container, exec=exec_id, signal=signum, all=all)

    async def pause(self, container: str) -> None:
        """Freeze every process of the container. Returns when they stand still."""
        await self._call("pause", container=container)

    async def resume(self, container: str) -> None:
        await self._call("resume", container=container)

    async def update(self, container: str, resources: dict[str, Any]) -> None:
        """Change limits while it runs; `resources` is an OCI `linux.resources`, of which only what is present changes."""
        await self._call("update", container=container, resources=resources)

    async def pids(self, container: str) -> list[int]:
        """Every process of the container, in the host's view."""
        return list((await self._call("pids", container=container))["pids"])

    async def stats(self, container: str) -> dict[str, Any]:
        """Usage by cgroup: `kernel.cgroups.Stats` as a dict (cpu in ns, memory in bytes, pids, blkio)."""
        return await self._call("stats", container=container)

    async def wait(self, container: str, exec_id: str | None = None) -> ExitStatus:
        """How it ended, now or earlier. Of execs the last 128 endings of each container are kept."""
        return ExitStatus.from_wire(await self._call("wait", container=container, exec=exec_id))

    async def delete(self, container: str) -> None:
        """Forget an exited container and remove its cgroups. Raises Conflict while it runs."""
        await self._call("delete", container=container)

    async def list(self) -> list[RuntimeState]:
        """Every container the keeper has: running, paused, and exited but not deleted."""
        reply = await self._call("list")
        return [RuntimeState.from_wire(fields) for fields in reply["containers"]]

    async def lost(self, since: int) -> None:
        """Returns as soon as a keeper has been lost after the first `since` of them (see `losses`): exits may have been missed since."""
        while self.losses <= since:
            self._on_loss = self._on_loss or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._on_loss)

    async def _call(self, op: str, attach: Attach | None = None, descriptors: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
        try:
            for attempt in range(ATTEMPTS):
                if self._socket is None:
                    await self.connect()
                try:
                    return await self._request({"op": op, **fields}, attach, descriptors)
                except KeeperLost as error:
                    if attempt == ATTEMPTS - 1 or not (isinstance(error, _NotSent) or op not in _ONCE):
                        raise
        finally:
            if attach is not None:
                attach.release_keeper_ends()  # only now: another keeper may have needed them
        raise AssertionError("unreachable")

    async def _request(self, message: dict[str, Any], attach: Attach | None, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        ends = attach.keeper_ends if attach is not None else {}
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        message = {"id": number, **message}
        if attach is not None:
            attach.is_lost = False
            self._attached.add(attach)
            message["attach"] = list(ends)
        try:
            async with self._sending:
                await self._send(message, (*ends.values(), *descriptors))
            return await future
        finally:
            if self._pending.pop(number, None) is None and future.done() and not future.cancelled():
                future.exception()  # lost while the sending failed: it has been told already

    async def _send(self, message: dict[str, Any], fds: tuple[int, ...]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock = self._socket
            if sock is None:
                raise _NotSent("the keeper went away")
            try:
                protocol.send(sock, message, fds)
                return
            except BlockingIOError:
                self._writable = loop.create_future()
                loop.add_writer(sock, _wake, self._writable)
                try:
                    await self._writable
                finally:
                    self._writable = None
                    if sock is self._socket:
                        loop.remove_writer(sock)
            except OSError as error:
                self._lost()
                raise _NotSent(f"the keeper does not answer: {error.strerror}") from error

    def _readable(self) -> None:
        sock = self._socket
        while sock is not None and sock is self._socket:
            try:
                received = protocol.receive(sock)
            except BlockingIOError:
                return
            except (OSError, protocol.ProtocolError):
                received = None
            if received is None:
                self._lost()
                return
            message, fds = received
            protocol.close_all(fds)
            self._dispatch(message)

    def _dispatch(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exit":
            status = ExitStatus.from_wire(message)
            for callback in self.on_exit:
                callback(status)
            return
        future = self._pending.get(message.get("id", 0))
        if future is None or future.done():
            return
        if "ok" in message:
            future.set_result(message["ok"])
        else:
            future.set_exception(_error(message["error"]))

    def _lost(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.remove_writer(sock)
            if self._writable is not None:
                _wake(self._writable)  # to find that there is no socket any more
            sock.close()
            self._gone.set()
            self.losses += 1
        waiting, self._on_loss = self._on_loss, None
        if waiting is not None:
            _wake(waiting)
        pending, self._pending = self._pending, {}
        attached, self._attached = self._attached, WeakSet()
        for attach in attached:
            attach.is_lost = True
        for future in pending.values():
            if not future.done():
                future.set_exception(KeeperLost("the keeper, which holds the containers, was replaced in the middle of this; try again"))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _error(fields: dict[str, Any]) -> AtollError:
    message = fields["message"]
    if fields["kind"] == "system":
        failure = SystemFailure(fields["what"], fields["errno"])
        failure.args = (message,)
        return failure
    return _ERRORS.get(fields["kind"], AtollError)(message)
