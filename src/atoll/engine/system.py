"""What the engine says of itself and of what it holds: GET /version, /system/df. GET /info is in `atoll.engine.info`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atoll import __version__
from atoll.engine.containers.listing import tree_size
from atoll.engine.edge import API_VERSION, MIN_API_VERSION
from atoll.errors import InvalidInput
from atoll.images import Platform

if TYPE_CHECKING:
    from atoll.engine.engine import Engine

USAGE_TYPES = ("container", "image", "volume", "build-cache")


def version() -> dict[str, Any]:
    api, low = "{}.{}".format(*API_VERSION), "{}.{}".format(*MIN_API_VERSION)
    host = Platform.of_host()
    kernel = platform.release()
    details = {
        "ApiVersion": api,
        "MinAPIVersion": low,
        "Arch": host.architecture,
        "Os": host.os,
        "KernelVersion": kernel,
        "Experimental": "false",
    }
    return {
        "Platform": {"Name": "Atoll"},
        "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
        "Version": __version__,
        "ApiVersion": api,
        "MinAPIVersion": low,
        "GitCommit": "",
        "GoVersion": "",
        "Os": host.os,
        "Arch": host.architecture,
        "KernelVersion": kernel,
        "BuildTime": "",
    }


def disk_usage(engine: Engine, types: Sequence[str]) -> dict[str, Any]:
    """GET /system/df; `types` limits it to some of container, image, volume, build-cache."""
    unknown = [name for name in types if name not in USAGE_TYPES]
    if unknown:
        raise InvalidInput(f"unknown object type: {unknown[0]}")
    wanted = set(types) or set(USAGE_TYPES)
    images = engine.images.disk_usage() if "image" in wanted else {"LayersSize": 0, "Images": None}
    return {
        "LayersSize": images["LayersSize"],
        "Images": images["Images"],
        "Containers": engine.containers.list(all=True, size=True) if "container" in wanted else None,
        "Volumes": _volumes(engine) if "volume" in wanted else None,
        "BuildCache": engine.builder.rows() if "build-cache" in wanted else None,
    }


def _volumes(engine: Engine) -> list[dict[str, Any]]:
    rows = []
    for volume in engine.volumes.list():
        users = sum(1 for item in engine.registry if any(row["name"] == volume["Name"] for row in item.record.mounts))
        rows.append({**volume, "UsageData": {"Size": tree_size(volume["Mountpoint"]), "RefCount": users}})
    return rows
