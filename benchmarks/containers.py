"""Containers through each engine's own command line and Engine API: run, many at once, exec, lists, logs, memory.

Rounds go through the engines in turn, forth and back, so that what else the machine does falls on all alike; the first turn warms up and is
dropped.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.engines import IMAGE, Atoll, Engine
from benchmarks.figures import Results
from benchmarks.processes import memory

MANY = 50
LOG_BYTES = 200_000_000
LOG_LINES = "x" * 99  # and a newline
SETTLE_S = 2.0
SLEEP = ("sleep", "900")
COMPOSE_RUNS = 3
DOWNLOADS = 3
SERVED = 512  # MB, by a container's web server
# As in a first try of compose: a volume, a network, an order; nothing waits for a grace.
PROJECT = f"""services:
  db: {{image: "{IMAGE}", command: [sleep, "600"], stop_grace_period: 0s, volumes: ["data:/data"]}}
  api: {{image: "{IMAGE}", command: [sleep, "600"], stop_grace_period: 0s, depends_on: [db]}}
  web: {{image: "{IMAGE}", command: [sleep, "600"], stop_grace_period: 0s, depends_on: [api]}}
volumes: {{data: {{}}}}
"""
STEPS = {"compose_up": ("up", "-d"), "compose_again": ("up", "-d"), "compose_down": ("down", "-v", "-t", "0")}


class Containers:
    def __init__(self, engines: list[Engine], results: Results, runs: int) -> None:
        self.engines, self.results, self.runs = list(engines), results, runs

    def measure(self, *, logs: bool = True) -> None:
        self._idle_memory()
        self._each("api_run", api_run)
        self._each("run", lambda engine: timed(engine, "run", "--rm", IMAGE, "true"))
        self._each("run_none", lambda engine: timed(engine, "run", "--rm", "--network", "none", IMAGE, "true"))
        self._against_a_running_one()
        self._each("at_once", at_once, runs=2)
        self._fifty()
        self._compose()
        self._published()
        if logs:
            self._logs()
        time.sleep(SETTLE_S)
        for engine in self.engines:
            self._memory("used", engine)

    def _each(self, key: str, sample: Callable[[Engine], float], runs: int | None = None) -> None:
        for turn in range((runs or self.runs) + 1):
            for engine in self.engines if turn % 2 else self.engines[::-1]:
                value = self._guarded(engine, sample)
                if turn and value is not None:
                    self.results.add(key, engine.name, value)

    def _guarded(self, engine: Engine, sample: Callable[[Engine], float]) -> float | None:
        """A peer that fails loses a figure; Atoll must not."""
        try:
            return sample(engine)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            if isinstance(engine, Atoll):
                raise
            print(f"{engine.name}: {error}", file=sys.stderr)
            return None

    def _idle_memory(self) -> None:
        time.sleep(SETTLE_S)
        for engine in self.engines:
            self._memory("idle", engine)
            if isinstance(engine, Atoll):
                self.results.add("keeper_rss", engine.name, memory([engine.keeper], "Rss"))
                self.results.add("engine_rss", engine.name, memory([engine.node], "Rss"))

    def _memory(self, when: str, engine: Engine) -> None:
        """RSS counts what processes share (50 shims of one program) once for each, PSS once."""
        for kind in ("Rss", "Pss"):
            self.results.add(f"{when}_{kind.lower()}", engine.name, memory(engine.processes(), kind))

    def _against_a_running_one(self) -> None:
        for engine in self.engines:
            engine.run("run", "-d", "--name", "bench", IMAGE, *SLEEP)
        self._each("exec", lambda engine: timed(engine, "exec", "bench", "true"))
        self._each("ps", lambda engine: timed(engine, "ps"))
        self._each("inspect", lambda engine: timed(engine, "inspect", "bench"))
        self._each("images", lambda engine: timed(engine, "images"))
        for engine in self.engines:
            engine.remove(["bench"])

    def _fifty(self) -> None:
        names = [f"many{number}" for number in range(MANY)]
        for engine in self.engines:
            begin = time.perf_counter()
            for name in names:
                engine.run("run", "-d", "--name", name, IMAGE, *SLEEP)
            self.results.add("start_each", engine.name, milliseconds(begin) / MANY)
            time.sleep(SETTLE_S)
            self._memory("fifty", engine)
            begin = time.perf_counter()
            engine.remove(names)
            self.results.add("remove_each", engine.name, milliseconds(begin) / MANY)

    def _compose(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(PROJECT)
            file.flush()
            for turn in range(COMPOSE_RUNS + 1):
                for engine in self.engines:
                    if not engine.has_compose:
                        continue
                    for key, words in STEPS.items():
                        took = timed(engine, "compose", "-f", file.name, "-p", "bench", *words)
                        if turn:
                            self.results.add(key, engine.name, took)

    def _published(self) -> None:
        """From a web server in a container to a client outside, over the port that is published on 127.0.0.1."""
        for engine in self.engines:
            script = f"dd if=/dev/zero of=/tmp/file bs=1M count={SERVED} 2>/dev/null; exec httpd -f -p 80 -h /tmp"
            engine.run("run", "-d", "--name", "served", "-p", "127.0.0.1:18080:80", IMAGE, "sh", "-c", script)
        for _ in range(DOWNLOADS):
            for engine in self.engines:
                client = [*engine.enter, sys.executable, str(Path(__file__).with_name("download.py")), "18080", str(SERVED << 20)]
                done = subprocess.run(client, capture_output=True, text=True, timeout=120, check=True)
                self.results.add("published", engine.name, float(done.stdout))
        for engine in self.engines:
            engine.remove(["served"])

    def _logs(self) -> None:
        for engine in self.engines:
            begin = time.perf_counter()
            script = f"yes {LOG_LINES} | head -c {LOG_BYTES}"
            engine.run("run", "-d", "--network", "none", "--name", "logs", IMAGE, "sh", "-c", script)
            engine.run("wait", "logs")
            self.results.add("log_capture", engine.name, LOG_BYTES / 1e3 / milliseconds(begin))
            begin = time.perf_counter()
            with engine.spawn("logs", "logs", stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                size = sum(len(part) for part in iter(lambda: process.stdout.read(1 << 20), b""))
            self.results.add("log_read", engine.name, size / 1e3 / milliseconds(begin))
            if size != LOG_BYTES:
                print(f"{engine.name}: {size} bytes of log came back of {LOG_BYTES}", file=sys.stderr)
            engine.remove(["logs"])


def milliseconds(begin: float) -> float:
    return (time.perf_counter() - begin) * 1e3


def timed(engine: Engine, *words: str) -> float:
    begin = time.perf_counter()
    engine.run(*words)
    return milliseconds(begin)


def api_run(engine: Engine) -> float:
    api = engine.api()
    try:
        begin = time.perf_counter()
        body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        made = api.call("POST", "/v1.40/containers/create", body)["Id"]
        api.call("POST", f"/v1.40/containers/{made}/start")
        api.call("POST", f"/v1.40/containers/{made}/wait")
        api.call("DELETE", f"/v1.40/containers/{made}?force=1")
        return milliseconds(begin)
    finally:
        api.close()


def at_once(engine: Engine) -> float:
    begin = time.perf_counter()
    running = [engine.spawn("run", "--rm", IMAGE, "true") for _ in range(MANY)]
    failed = sum(process.wait(timeout=300) != 0 for process in running)
    if failed:
        raise RuntimeError(f"{failed} of {MANY} containers at once failed")
    return milliseconds(begin)
