"""A soak: containers are started and stopped, and engine and keeper killed with -9 at random, for as long as one likes; then nothing may
be left, and what was told must be true.

    python -m benchmarks.soak [--cycles 2000] [--kills 500] [--workers 4] [--seed N]

First the cycles alone: memory and descriptors of engine, keeper and holder must stay flat. Then cycles under kills, until as many were made
as were asked for: every container ends with the exit code, the log and the number of restarts it must have, though its engine and its
keeper may have died at any instant. At the end processes, mounts, namespaces, cgroups, links, files and rows are counted against those of
the beginning. Needs root and Debian's busybox-static. Exit status 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.config import Instance
from atoll.runtime.constants import EXPECTED_S

IMAGE = "soak:latest"
PATIENCE_S = 120.0  # for an engine that is killed again and again, on a busy machine, to get something done
SETTLE_S = EXPECTED_S + 2.0  # for children that wait for a start to give up, and the kernel to take away what it takes away
GROWTH_MAX = 0.15  # of memory, after the first quarter of the cycles
LINES = 300


class Failed(Exception):
    """The engine told something that is not so."""


class Unreached(Exception):
    """The engine went away in the middle of a call."""


class Api:
    """The Engine API, a connection for each call."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def once(self, method: str, path: str, body: object = None, raw: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(60)
            connection.sock.connect(self._path)
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json" if raw is None else "application/x-tar"})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreached(str(error)) from error
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None, also: tuple[int, ...] = ()) -> Any:
        """Again and again until the engine answers; statuses in `also` are what an earlier try may have made of it."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                status, answer = self.once(method, path, body)
            except Unreached:
                status, answer = 503, b"no answer"
            if status != 503:
                break
            if time.monotonic() > end:
                raise Failed(f"{method} {path}: {answer!r} for {PATIENCE_S:.0f} s")
            time.sleep(0.05)
        if status >= 400 and status not in also:
            raise Failed(f"{method} {path}: {status} {answer[:300]!r}")
        return json.loads(answer) if answer[:1] in {b"{", b"["} and status < 400 else None


class Daemon:
    """The engine of one instance, which may be killed at any time."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.api = Api(instance.engine_socket)
        self._environ = {**os.environ, "ATOLL_HOME": str(instance.home)}
        self.start()

    def start(self) -> None:
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", "atoll.node.daemon", "--ready-fd", str(write_end)]
        self.process = subprocess.Popen(command, env=self._environ, pass_fds=(write_end,))
        os.close(write_end)
        with os.fdopen(read_end, "rb") as ready:
            if not ready.read(1):
                raise Failed(f"the engine does not start: see {self.instance.logs}")

    @property
    def keeper(self) -> int:
        return int((self.instance.run / "keeper.pid").read_text())

    def kill_engine(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def kill_keeper(self) -> None:
        try:
            os.kill(self.keeper, signal.SIGKILL)
        except ProcessLookupError:
            return  # it was killed an instant ago, and the next has not written its pid yet

    def close(self) -> None:
        environ = self._environ
        subprocess.run([str(Path(sys.executable).parent / "atoll"), "engine", "stop"], env=environ, check=False, capture_output=True)
        self.process.wait(60)


class Worker(threading.Thread):
    """Cycle after cycle: a container of a random kind, whose end is looked at."""

    def __init__(self, daemon: Daemon, seed: int, go_on: Callable[[], bool]) -> None:
        super().__init__(name=f"worker {seed}")
        self._api = daemon.api
        self._random = random.Random(seed)
        self._seed = seed
        self._go_on = go_on
        self.count = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while self._go_on() and not self.failures:
            self.count += 1
            name = f"soak-{self._seed}-{self.count}"
            kind = self._random.choice((self.ends, self.is_stopped, self.talks, self.restarts, self.removes_itself))
            try:
                kind(name)
            except Failed as error:
                self.failures.append(f"{name} ({kind.__name__}): {error}")

    def ends(self, name: str) -> None:
        code = self._random.randrange(256)
        self._start(name, f"echo {name}; exit {code}")
        self._end(name, code, f"{name}\n")

    def is_stopped(self, name: str) -> None:
        self._start(name, "trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done")
        while self._log(name) != "up\n":
            time.sleep(0.01)
        self._api.call("POST", f"/containers/{name}/stop")
        self._end(name, 42, "up\n")

    def talks(self, name: str) -> None:
        self._start(name, f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done; exit 3")
        self._end(name, 3, "".join(f"{number}\n" for number in range(1, LINES + 1)))

    def restarts(self, name: str) -> None:
        self._start(name, "echo run; exit 9", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 2})
        end = time.monotonic() + PATIENCE_S
        while (seen := self._inspect(name))["RestartCount"] < 2 or seen["State"]["Status"] != "exited":
            if time.monotonic() > end:
                raise Failed(f"restarted {seen['RestartCount']} times, {seen['State']}")
            time.sleep(0.02)
        self._end(name, 9, "run\n" * 3)

    def removes_itself(self, name: str) -> None:
        self._start(name, "exit 1", AutoRemove=True)
        end = time.monotonic() + PATIENCE_S
        while self._api.call("GET", f"/containers/{name}/json", also=(404,)) is not None:
            if time.monotonic() > end:
                raise Failed("it has not removed itself")
            time.sleep(0.02)

    def _start(self, name: str, script: str, **host: Any) -> None:
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": host}
        self._api.call("POST", f"/containers/create?name={name}", body, also=(409,))
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                status, answer = self._api.once("POST", f"/containers/{name}/start")
            except Unreached:
                status, answer = 503, b"no answer"
            if status in {204, 304}:
                return
            if status != 503:
                if status == 404 and host.get("AutoRemove"):
                    return
                raise Failed(f"start: {status} {answer[:300]!r}")
            seen = self._api.call("GET", f"/containers/{name}/json", also=(404,))
            if seen is None or not seen["State"]["StartedAt"].startswith("0001"):
                return  # the answer was lost, the start was not
            if time.monotonic() > end:
                raise Failed(f"start: {answer!r} for {PATIENCE_S:.0f} s")
            time.sleep(0.05)

    def _end(self, name: str, code: int, log: str) -> None:
        told = self._api.call("POST", f"/containers/{name}/wait")["StatusCode"]
        state = self._inspect(name)["State"]
        if (told, state["ExitCode"], state["Status"]) != (code, code, "exited"):
            raise Failed(f"exit code {code} was told as {told}, state {state}")
        if (seen := self._log(name)) != log:
            raise Failed(f"the log has {len(seen)} bytes instead of {len(log)}: {seen[:40]!r} ... {seen[-40:]!r}")
        self._api.call("DELETE", f"/containers/{name}", also=(404, 409))

    def _inspect(self, name: str) -> Any:
        return self._api.call("GET", f"/containers/{name}/json")

    def _log(self, name: str) -> str:
        while True:
            try:
                status, data = self._api.once("GET", f"/containers/{name}/logs?stdout=1&stderr=1")
            except Unreached:
                time.sleep(0.05)
                continue
            if status != 200:
                raise Failed(f"logs: {status} {data!r}")
            text = b""
            while data:
                size = int.from_bytes(data[4:8], "big")
                text, data = text + data[8 : 8 + size], data[8 + size :]
            return text.decode()


class Soak:
    def __init__(self, instance: Instance, workers: int = 4, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._workers = workers
        self._seed = seed
        self.daemon = Daemon(instance)
        self.instance = instance
        self.failures: list[str] = []
        status, answer = self.daemon.api.once("POST", "/images/create?fromSrc=-&repo=soak&tag=latest", raw=_image())
        if status != 200:
            raise Failed(f"the image cannot be imported: {answer!r}")

    def cycles(self, count: int) -> dict[str, tuple[float, float]]:
        """Without kills. Name of a measure to its values after a quarter and at the end."""
        self.work(max(1, count // 4))
        first = self.footprint()
        self.work(count - count // 4)
        last = self.footprint()
        for name, before in first.items():
            if last[name] > before * (1 + (GROWTH_MAX if name.endswith("MB") else 0)):
                self.failures.append(f"{name} has grown from {before:g} to {last[name]:g}")
        return {name: (first[name], last[name]) for name in first}

    def kills(self, count: int) -> int:
        """Cycles under so many kills; how many cycles there were."""
        self._is_over = False
        workers = self._begin(lambda: not self._is_over)
        for _ in range(count):
            time.sleep(self._random.expovariate(1 / 0.15))
            if self._random.random() < 0.5:
                self.daemon.kill_engine()
            else:
                self.daemon.kill_keeper()
            if any(worker.failures for worker in workers):
                break
        self._is_over = True
        return self._finish(workers)

    def work(self, count: int) -> int:
        left = threading.Semaphore(count)
        return self._finish(self._begin(lambda: left.acquire(blocking=False)))

    def _begin(self, go_on: Callable[[], bool]) -> list[Worker]:
        workers = []
        for _ in range(self._workers):
            self._seed += 1
            workers.append(Worker(self.daemon, self._seed, go_on))
            workers[-1].start()
        return workers

    def _finish(self, workers: list[Worker]) -> int:
        for worker in workers:
            worker.join()
            self.failures += worker.failures
        return sum(worker.count for worker in workers)

    def footprint(self) -> dict[str, float]:
        """What the instance takes of the machine now."""
        time.sleep(SETTLE_S)
        keeper = self.daemon.keeper
        holder = int(Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[1])
        home, name = str(self.instance.home), self.instance.id
        measures: dict[str, float] = {}
        for what, pid in (("engine", self.daemon.process.pid), ("keeper", keeper), ("holder", holder)):
            measures[f"{what}, MB"] = _resident(pid)
            measures[f"{what}, descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
            measures[f"{what}, children"] = len(_children(pid))
        measures["mounts"] = sum(home in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
        measures["links"] = sum(name[:6] in link for link in os.listdir("/sys/class/net"))
        measures["cgroups"] = sum(1 for top in Path("/sys/fs/cgroup").glob(f"*/atoll-{name}") for group in top.rglob("*") if group.is_dir())
        measures["containers"] = len(self.daemon.api.call("GET", "/containers/json?all=1"))
        for part in ("containers", "run", "volumes"):
            measures[f"files in {part}"] = sum(len(files) + len(directories) for _, directories, files in os.walk(f"{home}/{part}"))
        return measures

    def close(self) -> None:
        self.daemon.close()


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _image() -> bytes:
    """A root of busybox and two of its names."""
    buffer = io.BytesIO()
    program = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
        for name in ("sh", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(link)
    return buffer.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cycles", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--directory", default="/tmp", help="where the instance lies")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="atb-", dir=options.directory))
    print(f"seed {options.seed}, home {home}", flush=True)
    soak = Soak(Instance(home), options.workers, options.seed)
    try:
        begun = time.monotonic()
        measures = soak.cycles(options.cycles)
        print(f"{options.cycles} cycles in {time.monotonic() - begun:.0f} s", flush=True)
        begun = time.monotonic()
        under_kills = soak.kills(options.kills)
        print(f"{options.kills} kills in {time.monotonic() - begun:.0f} s, {under_kills} cycles meanwhile", flush=True)
        last = soak.footprint()
        print(f"\n{'':<24}{'after ' + str(options.cycles // 4):>14}{'after ' + str(options.cycles):>14}{'after kills':>14}")
        for name, (first, then) in measures.items():
            print(f"{name:<24}{first:>14g}{then:>14g}{last[name]:>14g}")
            if last[name] > first * (1 + (GROWTH_MAX if name.endswith("MB") else 0)):
                soak.failures.append(f"{name} has grown from {first:g} to {last[name]:g} under kills")
    finally:
        soak.close()
    for failure in soak.failures:
        print(f"WRONG: {failure}")
    if soak.failures:
        print(f"the instance stays at {home}")
        return 1
    shutil.rmtree(home)
    print("nothing is left, and all that was told is true")
    return 0


if __name__ == "__main__":
    sys.exit(main())
