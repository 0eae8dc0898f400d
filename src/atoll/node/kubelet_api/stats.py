"""GET /stats/summary: what the node and its pods use, as much of it as the cgroups tell (kubelet's stats/v1alpha1)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.engine import Engine
from atoll.errors import AtollError
from atoll.node.config import NodeConfig
from atoll.node.pods.model import ContainerState, is_mirror
from atoll.units import timestamp_seconds

if TYPE_CHECKING:
    from atoll.node.pods.kubelet import Kubelet

NS_PER_TICK = 10_000_000  # USER_HZ is 100 on every architecture


async def summary(engine: Engine, kubelet: Kubelet, config: NodeConfig) -> dict[str, Any]:
    now = timestamp_seconds()
    pods = []
    for pod in kubelet.pods():
        if is_mirror(pod):
            continue
        states = [attempts[0] for attempts in kubelet.containers(pod).values() if attempts[0].is_running]
        meta = pod["metadata"]
        pods.append(
            {
                "podRef": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
                "startTime": (pod.get("status") or {}).get("startTime"),
                "containers": [row for state in states if (row := await _container(engine, state, now)) is not None],
            }
        )
    node = {"nodeName": config.name, "startTime": now, "cpu": _node_cpu(now), "memory": _node_memory(now)}
    return {"node": node, "pods": pods}


async def _container(engine: Engine, state: ContainerState, now: str) -> dict[str, Any] | None:
    try:
        found = await engine.containers.statistics.sample(engine.containers.get(state.id), one_shot=True)
    except AtollError:
        return None
    memory = found["memory_stats"]
    usage = int(memory.get("usage") or 0)
    inactive = int((memory.get("stats") or {}).get("total_inactive_file") or (memory.get("stats") or {}).get("inactive_file") or 0)
    return {
        "name": state.name,
        "cpu": {"time": now, "usageCoreNanoSeconds": int(found["cpu_stats"]["cpu_usage"]["total_usage"])},
        "memory": {"time": now, "usageBytes": usage, "workingSetBytes": max(0, usage - inactive)},
    }


def _node_cpu(now: str) -> dict[str, Any]:
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return {"time": now, "usageCoreNanoSeconds": busy * NS_PER_TICK}


def _node_memory(now: str) -> dict[str, Any]:
    rows = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    values = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}
    used = values["MemTotal"] - values["MemAvailable"]
    return {"time": now, "availableBytes": values["MemAvailable"], "usageBytes": used, "workingSetBytes": used}
