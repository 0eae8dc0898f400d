"""A cluster of one node: its start, a pod's way from POST to Running, and what it costs when nothing happens.

Atoll alone: the published figures of other local clusters are tens of seconds and at least 500 MB, far from what a shared table would show.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.containers import milliseconds
from benchmarks.engines import IMAGE, Atoll
from benchmarks.figures import ATOLL, Results
from benchmarks.processes import cpu_percent, memory

from atoll.client.http import HttpClient
from atoll.client.kubeconfig import load
from atoll.client.resources import PODS, SERVICE_ACCOUNTS
from atoll.errors import StatusError

NAMESPACE = "default"
IDLE_S = 30.0
SETTLE_S = 10.0  # the first syncs of controllers and kubelet are over
PATIENCE_S = 30.0


def start(engine: Atoll, results: Results, engine_start_ms: float) -> None:
    begin = time.perf_counter()
    engine.run("cluster", "start")
    took = milliseconds(begin)
    results.add("cluster_start", ATOLL, took)
    results.add("cluster_cold", ATOLL, took + engine_start_ms)


def pods(engine: Atoll, results: Results, runs: int) -> None:
    async def measure() -> None:
        async with HttpClient.from_access(load(engine.instance.kubeconfig)) as client:
            await _service_account(client)
            for number in range(runs + 1):
                took = await _pod(client, f"bench-{number}")
                if number:  # the first warms up
                    results.add("pod", ATOLL, took)

    asyncio.run(measure())


def idle(engine: Atoll, results: Results) -> None:
    time.sleep(SETTLE_S)
    control_plane = int((engine.instance.cluster / "controlplane.pid").read_text())
    parts = [control_plane, *engine.processes()]
    results.add("cluster_pss", ATOLL, memory(parts, "Pss"))
    results.add("cluster_rss", ATOLL, memory(parts, "Rss"))
    results.add("cluster_cpu", ATOLL, cpu_percent(parts, IDLE_S))


async def _service_account(client: HttpClient) -> None:
    """Pods are refused until the namespace has its account."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.get(SERVICE_ACCOUNTS, "default", NAMESPACE)
            except StatusError:
                await asyncio.sleep(0.02)
            else:
                return


async def _pod(client: HttpClient, name: str) -> float:
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "900"], "imagePullPolicy": "Never"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    begin = time.perf_counter()
    made = await client.create(PODS, pod, NAMESPACE)
    await _until(client, made, lambda _, seen: (seen.get("status") or {}).get("phase") == "Running")
    took = milliseconds(begin)
    gone = await client.delete(PODS, name, NAMESPACE, grace_seconds=0)
    if gone.get("kind") == "Pod":
        await _until(client, made, lambda kind, _: kind == "DELETED")
    return took


async def _until(client: HttpClient, made: dict[str, Any], is_true) -> None:
    meta = made["metadata"]
    selector = f"metadata.name={meta['name']}"
    async with asyncio.timeout(PATIENCE_S):
        async for kind, seen in client.watch(PODS, NAMESPACE, resource_version=meta["resourceVersion"], field_selector=selector):
            if is_true(kind, seen):
                return
