"""The API server alone: one process, TLS, every acknowledged write on disk.

Requests come from one client process with keep-alive connections, GETs also from `wrk` where that is installed, since any client in Python
is the limit there. The client is part of the machine's load; what the server itself spends on a request is told beside the rates, and moves
less with what else the machine does.

    python -m benchmarks --only api
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pickle
import re
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from benchmarks.containers import milliseconds
from benchmarks.figures import ATOLL, Results
from benchmarks.processes import cpu_seconds, memory

from atoll.apiserver.config import StaticToken
from atoll.cluster.certificates import Certificates
from atoll.cluster.controlplane import api_config
from atoll.cluster.settings import ClusterSettings, free_port
from atoll.config import Instance
from atoll.http import Client

TOKEN = "benchmark"
NAMESPACE = "/api/v1/namespaces/default"
MAPS, PODS = f"{NAMESPACE}/configmaps", f"{NAMESPACE}/pods"
JSON, MERGE = "application/json", "application/merge-patch+json"
AT_ONCE = 16
WRITES = 3_000
MANY_PODS = 5_000
WATCHERS, EVENTS = 50, 500
UPDATES = 10_000  # of four objects, over and over
STORED = 10_000  # objects in the store at the second start
PAYLOAD = "x" * 256
CONTAINER = {
    "name": "c",
    "image": "registry.invalid/pause:1",
    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    "ports": [{"containerPort": 80}],
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
}
PATIENCE_S = 120.0


class Server:
    """An API server in a process of its own, on a store that stays when it goes."""

    def __init__(self, home: Path) -> None:
        self.instance = Instance(home)
        self.settings = ClusterSettings(node_name="bench", node_ip="127.0.0.1", api_port=free_port(6443))
        self.url = self.settings.server
        self.instance.cluster.mkdir(mode=0o711, parents=True, exist_ok=True)
        config = api_config(self.instance, self.settings)
        config = dataclasses.replace(config, tokens={TOKEN: StaticToken("bench", ("system:masters",))})
        begin = time.perf_counter()
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.serving"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin as stdin:
            pickle.dump(config, stdin)
        assert self._process.stdout.readline() == b"ready\n"
        self.start_ms = milliseconds(begin)

    @property
    def pid(self) -> int:
        return self._process.pid

    def client(self) -> Client:
        context = ssl.create_default_context(cafile=str(Certificates(self.instance, self.settings).authority))
        return Client(self.url, context, (("Authorization", f"Bearer {TOKEN}"), ("Accept", JSON)), timeout=PATIENCE_S)

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


def measure(home: Path, results: Results) -> None:
    with _server(home, results, "api_start") as server:
        time.sleep(1)
        results.add("api_rss_idle", ATOLL, memory([server.pid], "Rss"))
        asyncio.run(_Round(server, results).run())
        results.add("api_rss_after", ATOLL, memory([server.pid], "Rss"))
    with _server(home, results, "api_start_full"):
        pass


@contextlib.contextmanager
def _server(home: Path, results: Results, figure: str) -> Iterator[Server]:
    server = Server(home)
    results.add(figure, ATOLL, server.start_ms)
    try:
        yield server
    finally:
        server.close()


class _Round:
    def __init__(self, server: Server, results: Results) -> None:
        self._server = server
        self._results = results
        self._client = server.client()

    async def run(self) -> None:
        await self._call("POST", f"{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
        try:
            await self._writes()
            await self._reads()
            await self._watches()
            await self._pods()
            await self._updates()
        finally:
            await self._client.close()

    async def _writes(self) -> None:
        made = [self._bound("POST", MAPS, _configmap(f"c-{n}")) for n in range(WRITES)]
        await self._rate("api_post_one", made[:300], 1)
        await self._rate("api_post", made[300:], AT_ONCE, "api_post_cpu")
        changed = [self._bound("PATCH", f"{MAPS}/c-{n}", {"data": {"n": str(n)}}, MERGE) for n in range(WRITES)]
        await self._rate("api_patch", changed, AT_ONCE, "api_patch_cpu")

    async def _reads(self) -> None:
        gets = [self._bound("GET", f"{MAPS}/c-7")] * WRITES
        await self._rate("api_get_client", gets, AT_ONCE, "api_get_cpu")
        if shutil.which("wrk"):
            command = ["wrk", "-t1", f"-c{AT_ONCE}", "-d3s", "-H", f"Authorization: Bearer {TOKEN}", f"{self._server.url}{MAPS}/c-7"]
            told = (await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)).stdout
            found = re.search(r"Requests/sec:\s+([\d.]+)", told)
            assert found, told
            assert "Non-2xx" not in told, told
            self._results.add("api_get", ATOLL, float(found[1]))
        await self._latency("api_list_500", lambda: self._call("GET", f"{MAPS}?limit=500"), 40)

    async def _watches(self) -> None:
        """From the first of so many creates until each watcher has all of them."""
        listed = orjson.loads(await self._call("GET", f"{MAPS}?limit=1"))
        since, full = listed["metadata"]["resourceVersion"], asyncio.Event()
        names, watching = [f"w-{n}".encode() for n in range(EVENTS)], 0

        async def watcher() -> None:
            nonlocal watching
            seen: set[bytes] = set()
            target = f"{MAPS}?watch=1&resourceVersion={since}&timeoutSeconds={int(PATIENCE_S)}"
            async with await self._client.request("GET", target, timeout=0) as response:
                watching += 1
                if watching == WATCHERS:
                    full.set()
                rest = b""
                async for piece in response:
                    *lines, rest = (rest + piece).split(b"\n")
                    seen.update(re.findall(rb'"name":"(w-\d+)"', b"\n".join(lines)))
                    if len(seen) == len(names):
                        return

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(WATCHERS):
                group.create_task(watcher())
            await full.wait()
            begin = time.perf_counter()
            group.create_task(_at_once([self._bound("POST", MAPS, _configmap(name.decode())) for name in names], AT_ONCE))
        self._results.add("api_watch", ATOLL, milliseconds(begin))

    async def _pods(self) -> None:
        made = [self._bound("POST", PODS, _pod(f"p-{n:05d}")) for n in range(MANY_PODS)]
        await self._rate("api_pods", made, AT_ONCE, "api_pods_cpu")
        await self._latency("api_list_5000", lambda: self._call("GET", PODS), 10)

        async def pages() -> None:
            token = ""
            while True:
                body = await self._call("GET", f"{PODS}?limit=500{token}")
                found = re.search(rb'"continue":"([^"]+)"', body[:2_000])
                if not found:
                    return
                token = f"&continue={found[1].decode()}"

        await self._latency("api_pages", pages, 5)
        more = STORED - MANY_PODS - WRITES - EVENTS
        await _at_once([self._bound("POST", MAPS, _configmap(f"m-{n}")) for n in range(more)], AT_ONCE)

    async def _updates(self) -> None:
        before = memory([self._server.pid], "Rss")
        changes = (self._bound("PATCH", f"{MAPS}/c-{n % 4}", {"data": {"n": str(n)}}, MERGE) for n in range(UPDATES))
        await _at_once(changes, 4)
        self._results.add("api_growth", ATOLL, max(memory([self._server.pid], "Rss") - before, 0.0))

    async def _call(self, method: str, target: str, body: Any = None, kind: str = JSON) -> bytes:
        headers = (("Content-Type", kind),) if body is not None else ()
        data = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
        async with await self._client.request(method, target, headers, data) as response:
            answer = await response.read()
            assert response.status in (200, 201), answer[:500]
            return answer

    def _bound(self, method: str, target: str, body: Any = None, kind: str = JSON) -> Callable[[], Awaitable[object]]:
        data = orjson.dumps(body) if body is not None else None
        return lambda: self._call(method, target, data, kind)

    async def _rate(self, figure: str, jobs: list[Callable[[], Awaitable[object]]], at_once: int, cpu: str = "") -> None:
        spent, begin = cpu_seconds([self._server.pid]), time.perf_counter()
        await _at_once(jobs, at_once)
        self._results.add(figure, ATOLL, len(jobs) / (time.perf_counter() - begin))
        if cpu:
            self._results.add(cpu, ATOLL, (cpu_seconds([self._server.pid]) - spent) / len(jobs) * 1e6)

    async def _latency(self, figure: str, job: Callable[[], Awaitable[object]], times: int) -> None:
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            await job()
            taken.append(milliseconds(begin))
        self._results.add(figure, ATOLL, statistics.median(taken))


async def _at_once(jobs: Iterable[Callable[[], Awaitable[object]]], count: int) -> None:
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    await asyncio.gather(*(worker() for _ in range(count)))


def _configmap(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app": "bench"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"payload": PAYLOAD}}


def _pod(name: str) -> dict[str, Any]:
    spec = {"containers": [CONTAINER], "schedulerName": "nobody", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}
