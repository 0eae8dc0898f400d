"""ImageLocality: a node that has the pod's images starts it sooner."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.client.objects import Object
from atoll.scheduler.plugins.base import SCORE_MAX
from atoll.scheduler.requests import PodInfo
from atoll.scheduler.snapshot import NodeInfo, Snapshot

MIN_BYTES = 23 * 1024 * 1024  # upstream's thresholds, per pod and per container
MAX_BYTES = 1000 * 1024 * 1024


def score(info: PodInfo, nodes: Sequence[NodeInfo], _snapshot: Snapshot) -> list[float]:
    containers = info.pod["spec"].get("containers") or ()
    wanted = {_with_tag(container["image"]) for container in containers if container.get("image")}
    top = MAX_BYTES * max(len(containers), 1)
    return [_scaled(_present(node.node, wanted), top) for node in nodes]


def _present(node: Object, wanted: set[str]) -> int:
    images = (node.get("status") or {}).get("images") or ()
    return sum(image.get("sizeBytes", 0) for image in images if wanted & {_with_tag(name) for name in image.get("names") or ()})


def _scaled(size: int, top: int) -> float:
    return SCORE_MAX * (min(max(size, MIN_BYTES), top) - MIN_BYTES) / (top - MIN_BYTES)


def _with_tag(name: str) -> str:
    short = name.removeprefix("docker.io/").removeprefix("library/")
    return short if ":" in short.rpartition("/")[2] or "@" in short else f"{short}:latest"
