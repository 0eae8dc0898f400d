"""What the engine says of itself and its machine: GET /version, /info, /system/df."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atoll import __version__, units
from atoll.engine import runtimes
from atoll.engine.containers.listing import tree_size
from atoll.engine.containers.log_options import LOG_DRIVERS
from atoll.engine.edge import API_VERSION, MIN_API_VERSION
from atoll.errors import InvalidInput
from atoll.images import Platform
from atoll.kernel.cgroups import Layout
from atoll.runtime.cdi import Catalogue

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


def info(engine: Engine) -> dict[str, Any]:
    layout = Layout.discover()
    unified = not any(layout.has(name) and name not in layout.unified_controllers for name in ("memory", "cpu", "pids"))
    has_memory, has_cpu = layout.has("memory"), layout.has("cpu")
    catalogue = Catalogue.read(engine.services.settings.cdi_directories)
    return {
        "ID": engine.instance.id,
        **engine.containers.counts(),
        "Images": len(engine.images.all()),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs"], ["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": list(LOG_DRIVERS)},
        "MemoryLimit": has_memory,
        "SwapLimit": has_memory,
        "CpuCfsPeriod": has_cpu,
        "CpuCfsQuota": has_cpu,
        "CPUShares": has_cpu,
        "CPUSet": layout.has("cpuset"),
        "PidsLimit": layout.has("pids"),
        "OomKillDisable": has_memory and not unified,
        "IPv4Forwarding": _read_flag("/proc/sys/net/ipv4/ip_forward"),
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": False,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": 0,
        "NEventsListener": engine.events.listeners,
        "SystemTime": units.timestamp(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
        "KernelVersion": platform.release(),
        "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
        "OSVersion": _os_release().get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": None},
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "GenericResources": None,
        "DockerRootDir": str(engine.instance.home),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": platform.node(),
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {
            runtimes.OWN: {"path": runtimes.OWN},
            **{name: {"path": str(path)} for name, path in runtimes.others(engine.services.settings).items()},
        },
        "DefaultRuntime": runtimes.OWN,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,  # containers outlive the daemon
        "Isolation": "",
        "InitBinary": "atoll",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": list(catalogue.directories),
        "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in sorted(catalogue.devices)],
        "Warnings": None,
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


def _read_flag(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
