"""The engines that are measured: Atoll, and those peers that are installed, each with its own state in one directory.

A peer starts from nothing and leaves nothing (see cell.py). All have the same image, made from Debian's static busybox.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.cell import READY_S, STEP_S, Cell
from benchmarks.figures import ATOLL, DOCKER

from atoll.config import Instance

IMAGE = "localhost/busybox:latest"
COMMAND_S = 300
PROGRAM = str(Path(sys.executable).parent / "atoll")
COMPOSE = Path(sys.executable).parent / "docker-compose"  # the same for all
FETCHED = Path(sys.executable).parents[1] / "docker"  # by packaging/fetch-docker --engine


class Engine:
    """A command line, its environment, a socket with the Engine API, and the processes that make the engine."""

    name: str
    command: list[str]
    socket: Path
    environ: dict[str, str]
    enter: tuple[str, ...] | list[str] = ()  # what brings a command to where its ports are published
    has_compose = True

    def run(self, *words: str, check: bool = True, stdin: bytes = b"") -> str:
        done = subprocess.run([*self.command, *words], env=self.environ, input=stdin, capture_output=True, timeout=COMMAND_S, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(words)}: status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
        return done.stdout.decode(errors="replace")

    def spawn(self, *words: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.command, *words], env=self.environ, stdin=subprocess.DEVNULL, stdout=stdout)

    def api(self) -> Api:
        return Api(self.socket)

    def version(self) -> str:
        return str(self.api().call("GET", "/version")["Version"])

    def processes(self) -> list[int]:
        raise NotImplementedError

    def remove(self, names: list[str]) -> None:
        self.run("rm", "-f", *names)

    def close(self) -> None:
        raise NotImplementedError


class Atoll(Engine):
    name = ATOLL

    def __init__(self, home: Path) -> None:
        self.instance = Instance(home)
        self.command = [PROGRAM]
        self.socket = self.instance.engine_socket
        self.environ = {**os.environ, "ATOLL_HOME": str(home), "KUBECONFIG": str(home / "users-kubeconfig")}
        self.environ.pop("DOCKER_HOST", None)
        self.run("engine", "start")

    @property
    def keeper(self) -> int:
        return int((self.instance.run / "keeper.pid").read_text())

    @property
    def node(self) -> int:
        return int((self.instance.run / "engine.pid").read_text())

    def processes(self) -> list[int]:
        holder = int(Path(f"/proc/{self.keeper}/stat").read_text().rpartition(")")[2].split()[1])  # the keeper's parent
        return [self.node, self.keeper, holder]

    def close(self) -> None:
        self.run("engine", "stop")


class Docker(Engine):
    """The Docker that the targets are set against: of Debian unstable, where it has been fetched, else the one that is installed."""

    name = DOCKER

    def __init__(self, home: Path) -> None:
        programs = self.programs()
        self.command, self.socket = [docker_client() if programs else "docker"], home / "docker.sock"
        plugins = home / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(COMPOSE)
        self.environ = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(plugins.parent)}
        group = f"atoll-bench-{self.name}-{os.getpid()}"
        words = ["--data-root", home / "data", "--exec-root", home / "exec", "--pidfile", home / "pid", "--host", f"unix://{self.socket}"]
        self._cell = Cell(["dockerd", f"--cgroup-parent=/{group}", *map(str, words)], home / "log", (group,), programs)
        self.enter = self._cell.enter
        _await(self)

    @classmethod
    def programs(cls) -> Path | None:
        return FETCHED / "engine" if (FETCHED / "engine").exists() else None

    @classmethod
    def is_there(cls) -> bool:
        return cls.programs() is not None or _are_installed("docker", "dockerd", "containerd")

    def processes(self) -> list[int]:
        return [pid for pid in self._cell.processes() if _program(pid).startswith(("dockerd", "containerd", "docker-proxy"))]

    def close(self) -> None:
        self._cell.close()


class InstalledDocker(Docker):
    """Debian's docker.io, beside the fetched one."""

    name = "docker.io"

    @classmethod
    def programs(cls) -> Path | None:
        return None

    @classmethod
    def is_there(cls) -> bool:
        return Docker.programs() is not None and _are_installed("docker", "dockerd", "containerd")


class Podman(Engine):
    name = "podman"
    has_compose = False

    def __init__(self, home: Path) -> None:
        self.socket = home / "podman.sock"
        self.environ = dict(os.environ)
        words = [f"--root={home}/root", f"--runroot={home}/run", f"--tmpdir={home}/tmp", f"--network-config-dir={home}/networks"]
        podman = ["podman", *words, "--cgroup-manager=cgroupfs", "--runtime=crun"]
        service = [*podman, "system", "service", "--time=0", f"unix://{self.socket}"]
        self._cell = Cell(service, home / "log", ("libpod_parent", "conmon"))
        self.enter = self._cell.enter
        self.command = [*self.enter, *podman]
        _await(self)

    @classmethod
    def is_there(cls) -> bool:
        return _are_installed("podman", "crun", "conmon")

    def processes(self) -> list[int]:
        return [pid for pid in self._cell.processes() if _program(pid).startswith(("podman", "conmon"))]

    def remove(self, names: list[str]) -> None:
        self.run("rm", "-f", "-t", "0", *names)  # docker's -f kills at once, podman's waits for the stop's grace

    def close(self) -> None:
        self._cell.close()


PEERS: tuple[type[Docker | Podman], ...] = (Docker, InstalledDocker, Podman)


def installed() -> list[type[Docker | Podman]]:
    return [peer for peer in PEERS if peer.is_there()]


def docker_client() -> str:
    """One docker CLI for engines that are compared by it."""
    fetched = FETCHED / "bin" / "docker"
    return str(fetched) if fetched.exists() else "docker"


class Api:
    """The Engine API on one kept connection."""

    def __init__(self, path: Path) -> None:
        self._connection = http.client.HTTPConnection("localhost", timeout=60)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        try:
            self._connection.sock.connect(str(path))
        except OSError:
            self._connection.close()
            raise

    def call(self, method: str, path: str, body: object = None) -> dict:
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:200]!r}")
        return json.loads(answer) if answer[:1] == b"{" else {}

    def close(self) -> None:
        self._connection.close()


def _await(engine: Engine) -> None:
    end = time.monotonic() + READY_S
    while True:
        try:
            api = engine.api()
            api.call("GET", "/_ping")
        except OSError:
            assert time.monotonic() < end, f"{engine.name} does not answer on {engine.socket}"
            time.sleep(STEP_S)
        else:
            api.close()
            return


def _are_installed(*programs: str) -> bool:
    return all(shutil.which(program) for program in programs)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
