"""What this builder is, as `docker buildx ls` and `inspect` show it: one worker, for this machine's platform."""

from __future__ import annotations

from typing import Any

from atoll import __version__
from atoll.build.buildkit import messages
from atoll.images import Platform

WORKER = "atoll"
# Clients take a docker daemon whose worker names its snapshotter for one that can export archives (buildx, driver/docker).
LABELS = {"org.mobyproject.buildkit.worker.executor": "atoll", "org.mobyproject.buildkit.worker.snapshotter": "overlayfs"}


def worker() -> Any:
    """A WorkerRecord."""
    platform = Platform.of_host()
    return messages.WorkerRecord(
        ID=WORKER,
        Labels=LABELS,
        platforms=[messages.Platform(OS=platform.os, Architecture=platform.architecture, Variant=platform.variant)],
        BuildkitVersion=version(),
    )


def version() -> Any:
    """A BuildkitVersion. Clients compare it with BuildKit's own releases: it names the one whose protocol is spoken."""
    return messages.BuildkitVersion(package="atoll", version=f"v0.25.0+atoll-{__version__}", revision="")
