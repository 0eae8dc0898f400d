"""GET /containers/{id}/json: everything about one container, in the shape of the API version asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll import units
from atoll.engine.containers.mounts import MountPoint
from atoll.engine.containers.record import Container, Record, Status
from atoll.images import Platform

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, what clients compare with
LEGACY_NETWORK_FIELDS_UNTIL = (1, 51)  # dropped from 1.52 on


@dataclass(frozen=True, slots=True)
class Networking:
    """What the network floor knows of a container: published ports, namespace."""

    ports: Mapping[str, Any]
    sandbox: str


def moment(ns: int) -> str:
    return units.timestamp(ns) if ns else NEVER


def state(container: Container) -> dict[str, Any]:
    record, status = container.record, container.shown
    found = {
        "Status": status.value,
        "Running": container.is_up or status is Status.RESTARTING,
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": record.oom_killed,
        "Dead": status is Status.DEAD,
        "Pid": record.pid if container.is_up else 0,
        "ExitCode": record.exit_code,
        "Error": record.error,
        "StartedAt": moment(record.started_ns),
        "FinishedAt": moment(record.finished_ns),
    }
    if container.health is not None:
        found["Health"] = container.health.wire()
    return found


def inspect(container: Container, networking: Networking, version: tuple[int, int] = LEGACY_NETWORK_FIELDS_UNTIL) -> dict[str, Any]:
    """The whole ContainerInspectResponse."""
    record, paths = container.record, container.paths
    command = command_line(record)
    config = {
        name: value
        for name, value in record.config.items()
        if value is not None or name in {"Env", "Cmd", "Volumes", "Entrypoint", "OnBuild"}
    }
    for name in ("ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal"):
        if not config.get(name):
            config.pop(name, None)
    platform = Platform.of_host()
    return {
        "Id": record.id,
        "Created": moment(record.created_ns),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": state(container),
        "Image": record.image,
        "ResolvConfPath": str(paths.resolv_conf),
        "HostnamePath": str(paths.hostname),
        "HostsPath": str(paths.hosts),
        "LogPath": str(paths.log),
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": platform.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(container.exec_ids) or None,
        "HostConfig": dict(record.host),
        "GraphDriver": {
            "Data": {"ID": record.id, "UpperDir": str(paths.upper), "WorkDir": str(paths.work), "MergedDir": str(paths.root / "rootfs")},
            "Name": "overlay2",
        },
        "Mounts": [MountPoint.from_row(row).wire() for row in record.mounts if row["type"] != "tmpfs" or not _is_plain_tmpfs(record, row)],
        "Config": config,
        "NetworkSettings": network_settings(container, networking, version),
    }


def _is_plain_tmpfs(record: Record, row: Mapping[str, Any]) -> bool:
    """--tmpfs shows in HostConfig.Tmpfs alone; --mount type=tmpfs shows in Mounts as well."""
    return row["destination"] in (record.host["Tmpfs"] or {})


def command_line(record: Record) -> list[str]:
    return [*(record.config["Entrypoint"] or ()), *(record.config["Cmd"] or ())]


EMPTY_ENDPOINT: dict[str, Any] = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}


def networks(record: Record) -> dict[str, Any]:
    """NetworkSettings.Networks: what holds while it runs, else what was asked for with empty addresses."""
    wanted = {name: {**EMPTY_ENDPOINT, **_asked(settings)} for name, settings in record.networking.items()}
    for name, settings in record.endpoints.items():
        wanted[name] = {
            **settings,
            **{key: value for key, value in _asked(record.networking.get(name) or {}).items() if key != "MacAddress"},
        }
    return wanted


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority") if settings.get(name)}


def ports(record: Record, networking: Networking) -> dict[str, Any]:
    """Published ports, and exposed ones as null."""
    if not record.endpoints:
        return {}
    exposed: dict[str, Any] = {port if "/" in port else f"{port}/tcp": None for port in record.config["ExposedPorts"] or ()}
    return exposed | dict(networking.ports)


def network_settings(container: Container, networking: Networking, version: tuple[int, int]) -> dict[str, Any]:
    record = container.record
    attached = networks(record)
    settings: dict[str, Any] = {
        "SandboxID": record.id if container.is_up else "",
        "SandboxKey": networking.sandbox if container.is_up else "",
        "Ports": ports(record, networking) if container.is_up else {},
        "Networks": attached,
    }
    if version > LEGACY_NETWORK_FIELDS_UNTIL:
        return settings
    bridge = attached.get("bridge") or EMPTY_ENDPOINT
    fields = ["EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress"]
    return {
        "Bridge": "",
        **settings,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{name: bridge[name] for name in fields},
    }
