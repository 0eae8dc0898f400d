"""GET /info: the engine, the machine it runs on, and what the two together can do, in parts."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from atoll import __version__, units
from atoll.engine import runtimes
from atoll.engine.containers.log_options import LOG_DRIVERS
from atoll.kernel.cgroups import Layout
from atoll.runtime.cdi import Catalogue

if TYPE_CHECKING:
    from atoll.engine.engine import Engine


def info(engine: Engine) -> dict[str, Any]:
    """The whole SystemInfo."""
    return {**_engine(engine), **_limits(Layout.discover()), **_machine(), **_abilities(engine), **NOT_HERE, "Warnings": None}


NOT_HERE: dict[str, Any] = {
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "ContainerdCommit": {"ID": ""},
    "RuncCommit": {"ID": ""},
    "InitCommit": {"ID": ""},
    "BridgeNfIptables": False,
    "BridgeNfIp6tables": False,
    "GenericResources": None,
    "Isolation": "",
    "NGoroutines": 0,
}
"""What dockerd is made of and Atoll is not; clients read these fields."""


def _engine(engine: Engine) -> dict[str, Any]:
    return {
        "ID": engine.instance.id,
        "Name": platform.node(),
        "ServerVersion": __version__,
        **engine.containers.counts(),
        "Images": len(engine.images.all()),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs"], ["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
        "DockerRootDir": str(engine.instance.home),
        "LoggingDriver": "json-file",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": None},
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "Debug": False,
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": True,  # containers outlive the daemon
        "NFd": len(os.listdir("/proc/self/fd")),
        "NEventsListener": engine.events.listeners,
        "SystemTime": units.timestamp(),
    }


def _limits(layout: Layout) -> dict[str, Any]:
    """What of a container can be limited, by the controllers this machine has."""
    unified = not any(layout.has(name) and name not in layout.unified_controllers for name in ("memory", "cpu", "pids"))
    has_memory, has_cpu = layout.has("memory"), layout.has("cpu")
    return {
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
        "MemoryLimit": has_memory,
        "SwapLimit": has_memory,
        "OomKillDisable": has_memory and not unified,
        "CpuCfsPeriod": has_cpu,
        "CpuCfsQuota": has_cpu,
        "CPUShares": has_cpu,
        "CPUSet": layout.has("cpuset"),
        "PidsLimit": layout.has("pids"),
    }


def _machine() -> dict[str, Any]:
    release = _os_release()
    return {
        "KernelVersion": platform.release(),
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "IPv4Forwarding": _read_flag("/proc/sys/net/ipv4/ip_forward"),
    }


def _abilities(engine: Engine) -> dict[str, Any]:
    """Drivers, runtimes, devices, security."""
    settings = engine.services.settings
    catalogue = Catalogue.read(settings.cdi_directories)
    others = {name: {"path": str(path)} for name, path in runtimes.others(settings).items()}
    return {
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": list(LOG_DRIVERS)},
        "Runtimes": {runtimes.OWN: {"path": runtimes.OWN}, **others},
        "DefaultRuntime": runtimes.OWN,
        "InitBinary": "atoll",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": list(catalogue.directories),
        "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in sorted(catalogue.devices)],
    }


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
