"""A node daemon of a test's own instance, with the real docker CLI and docker-py beside it.

    daemon = EngineDaemon(instance); daemon.start()
    daemon.docker("run", "--rm", "busybox", "true")      # subprocess.CompletedProcess, checked unless check=False
    daemon.kill(); daemon.start()                        # kill -9 and a restart: containers run on
    daemon.destroy()                                     # takes everything away

Images need no registry: `hello-world` is built in, `busybox` is made from the host's static /bin/busybox.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import docker

from atoll.config import Instance
from atoll.engine import Engine
from atoll.errors import Conflict, NotFound
from atoll.network import Networks
from atoll.runtime import Runtime

READY_S = 15.0
BUSYBOX = "/bin/busybox"
ATOLL = str(Path(sys.executable).parent / "atoll")


class EngineDaemon:
    def __init__(self, instance: Instance, environ: dict[str, str] | None = None, through: Sequence[str] = ()) -> None:
        """`through` is a command that starts the one that follows it, somewhere else."""
        self.instance = instance
        self._through = through
        self.environ = {**os.environ, "ATOLL_HOME": str(instance.home), "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0", **(environ or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.instance.engine_socket}"

    def start(self) -> None:
        self.process = subprocess.Popen([*self._through, sys.executable, "-m", "atoll.node.daemon"], env=self.environ)
        end = time.monotonic() + READY_S
        while not self._answers():
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}"
            assert time.monotonic() < end, "the daemon is not ready"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.instance.engine_socket))
            except OSError:
                return False
        return True

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(signal.SIGCONT)  # a test may have stopped it
            process.send_signal(number)
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(READY_S)
                raise

    def destroy(self) -> None:
        """Stops the daemon and removes containers, networks and the keeper; all of them, whatever a failed test has left of the engine."""
        with contextlib.ExitStack() as stack:
            stack.callback(asyncio.run, _take_away_rest(self.instance))
            stack.callback(lambda: asyncio.run(self._take_away()))
            self.stop()

    async def _take_away(self) -> None:
        engine = Engine(self.instance)
        try:
            await engine.start()
            await engine.destroy()
        finally:
            await engine.close()

    def docker(
        self,
        *args: str,
        check: bool = True,
        input: str | bytes | None = None,  # noqa: A002
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[str]:
        data = input.encode() if isinstance(input, str) else input
        given = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(["docker", *args], env=self.environ, capture_output=True, timeout=timeout, check=False, **given)
        result = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        assert not check or not result.returncode, f"docker {' '.join(args)}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def terminal(self, *args: str) -> Terminal:
        return Terminal(["docker", *args], self.environ)

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, timeout=30)

    def make_busybox(self) -> None:
        self.docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", input=busybox_tar())


async def _take_away_rest(instance: Instance) -> None:
    """What an engine that cannot be started or destroyed would have taken away; nothing after one that could."""
    if instance.keeper_socket.exists():
        runtime = Runtime(instance)
        for state in await runtime.list():
            with contextlib.suppress(Conflict, NotFound):
                await runtime.signal(state.id, signal.SIGKILL)
                await asyncio.wait_for(runtime.wait(state.id), READY_S)
            with contextlib.suppress(NotFound):
                await runtime.delete(state.id)
        await runtime.stop_keeper()
    networks = Networks(instance)
    try:
        await networks.destroy()
    finally:
        await networks.close()


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        command = ["env", "--default-signal=INT", *command]  # which a shell's background job, as the tests may be, ignores
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True)
        os.close(slave)
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str, timeout: float = 10) -> None:
        """Reads until `text` has come since the last call."""
        end = time.monotonic() + timeout
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} did not come; seen: {self.seen!r}"
            try:
                self.seen += os.read(self._master, 65536)
            except OSError:  # the other side has closed
                assert text.encode() in self.seen, f"{text!r} did not come; seen: {self.seen!r}"
        self.seen = self.seen.partition(text.encode())[2]

    def wait(self, timeout: float = 10) -> int:
        return self.process.wait(timeout)


def busybox_tar() -> bytes:
    """The root of a small system: busybox under all its names, two users, /tmp."""
    buffer = io.BytesIO()
    program = Path(BUSYBOX).read_bytes()
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", program, 0o755)
        for name in names:
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname, entry.mode = tarfile.LNKTYPE, "bin/busybox", 0o755  # dockerd applies a link's mode
                tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def has_docker() -> bool:
    return shutil.which("docker") is not None


def docker_files() -> list[str]:
    """The docker CLI, and what it needs where it is not a static program: the loader and the libraries, by the paths they have here."""
    docker = shutil.which("docker")
    assert docker is not None
    listed = subprocess.run(["ldd", docker], capture_output=True, text=True, check=False).stdout
    return [docker, *(word for word in listed.split() if word.startswith("/"))]
