"""The body of POST /containers/create, read strictly and given every default.

Three tables name Docker's fields, their kinds and their defaults; what comes out has each field once, so nothing further down asks "is it
there?" and inspect shows what Docker shows. A field of the wrong type is the client's error (400) that names it; unknown fields are passed
over, as Docker does. What Atoll cannot do (another log driver) is refused here, not at start.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from atoll.engine.containers import requests
from atoll.engine.containers.log_options import log_config
from atoll.errors import InvalidInput, NotSupported
from atoll.runtime.resources import from_host_config
from atoll.runtime.spec import MASKED_PATHS, READONLY_PATHS
from atoll.units import NS

Table = Mapping[str, tuple[str, Any]]
"""Field to (kind, default). Kinds: text, truth, int, number, texts (list), words (list or one string), map (string to string), set (keys
to empty objects), object, objects (list), any."""

SHM_DEFAULT = 64 << 20  # bytes, Docker's
_RESTART_POLICY: Table = {"Name": ("text", ""), "MaximumRetryCount": ("int", 0)}
RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


CONFIG: Table = {
    "Hostname": ("text", ""),
    "Domainname": ("text", ""),
    "User": ("text", ""),
    "AttachStdin": ("truth", False),
    "AttachStdout": ("truth", False),
    "AttachStderr": ("truth", False),
    "ExposedPorts": ("set", None),
    "Tty": ("truth", False),
    "OpenStdin": ("truth", False),
    "StdinOnce": ("truth", False),
    "Env": ("texts", None),
    "Cmd": ("words", None),
    "Healthcheck": ("object", None),
    "ArgsEscaped": ("truth", False),
    "Image": ("text", ""),
    "Volumes": ("set", None),
    "WorkingDir": ("text", ""),
    "Entrypoint": ("words", None),
    "NetworkDisabled": ("truth", False),
    "MacAddress": ("text", ""),
    "OnBuild": ("texts", None),
    "Labels": ("map", {}),
    "StopSignal": ("text", ""),
    "StopTimeout": ("int", None),
    "Shell": ("texts", None),
}

RESOURCES: Table = {
    "CpuShares": ("int", 0),
    "Memory": ("int", 0),
    "NanoCpus": ("int", 0),
    "CgroupParent": ("text", ""),
    "BlkioWeight": ("int", 0),
    "BlkioWeightDevice": ("objects", []),
    "BlkioDeviceReadBps": ("objects", []),
    "BlkioDeviceWriteBps": ("objects", []),
    "BlkioDeviceReadIOps": ("objects", []),
    "BlkioDeviceWriteIOps": ("objects", []),
    "CpuPeriod": ("int", 0),
    "CpuQuota": ("int", 0),
    "CpuRealtimePeriod": ("int", 0),
    "CpuRealtimeRuntime": ("int", 0),
    "CpusetCpus": ("text", ""),
    "CpusetMems": ("text", ""),
    "Devices": ("objects", []),
    "DeviceCgroupRules": ("texts", None),
    "DeviceRequests": ("objects", None),
    "MemoryReservation": ("int", 0),
    "MemorySwap": ("int", 0),
    "MemorySwappiness": ("int", None),
    "OomKillDisable": ("truth", None),
    "PidsLimit": ("int", None),
    "Ulimits": ("objects", []),
    "CpuCount": ("int", 0),
    "CpuPercent": ("int", 0),
    "IOMaximumIOps": ("int", 0),
    "IOMaximumBandwidth": ("int", 0),
}

HOST: Table = {
    "Binds": ("texts", None),
    "ContainerIDFile": ("text", ""),
    "LogConfig": ("object", {"Type": "json-file", "Config": {}}),
    "NetworkMode": ("text", "default"),
    "PortBindings": ("any", {}),
    "RestartPolicy": ("object", {"Name": "no", "MaximumRetryCount": 0}),
    "AutoRemove": ("truth", False),
    "VolumeDriver": ("text", ""),
    "VolumesFrom": ("texts", None),
    "ConsoleSize": ("any", [0, 0]),
    "CapAdd": ("texts", None),
    "CapDrop": ("texts", None),
    "CgroupnsMode": ("text", "private"),
    "Dns": ("texts", []),
    "DnsOptions": ("texts", []),
    "DnsSearch": ("texts", []),
    "ExtraHosts": ("texts", None),
    "GroupAdd": ("texts", None),
    "IpcMode": ("text", "private"),
    "Cgroup": ("text", ""),
    "Links": ("texts", None),
    "OomScoreAdj": ("int", 0),
    "PidMode": ("text", ""),
    "Privileged": ("truth", False),
    "PublishAllPorts": ("truth", False),
    "ReadonlyRootfs": ("truth", False),
    "SecurityOpt": ("texts", None),
    "UTSMode": ("text", ""),
    "UsernsMode": ("text", ""),
    "ShmSize": ("int", SHM_DEFAULT),
    "Sysctls": ("map", {}),
    "Runtime": ("text", "atoll"),
    "Isolation": ("text", ""),
    **RESOURCES,
    "Mounts": ("objects", None),
    "Tmpfs": ("map", None),
    "StorageOpt": ("map", None),
    "Annotations": ("map", None),
    "Init": ("truth", None),
    "MaskedPaths": ("texts", None),
    "ReadonlyPaths": ("texts", None),
}

DEVICE: Table = {"PathOnHost": ("text", ""), "PathInContainer": ("text", ""), "CgroupPermissions": ("text", "")}

NETWORKING: Table = {"EndpointsConfig": ("object", {})}

MODES: Mapping[str, tuple[str, frozenset[str]]] = {
    "CgroupnsMode": ("cgroup namespace mode", frozenset({"", "host", "private"})),
    "IpcMode": ("IPC mode", frozenset({"", "container", "host", "none", "private", "shareable"})),
    "PidMode": ("PID mode", frozenset({"", "container", "host"})),
    "UTSMode": ("UTS mode", frozenset({"", "host"})),
}
"""Namespaces: what each is called, and the modes there are; "container" stands for container:<name|id>."""
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE | re.ASCII)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "truth": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63,
    "texts": _is_texts,
    "words": _is_texts,
    "map": lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
    "set": lambda value: isinstance(value, dict) and all(item is None or isinstance(item, dict) for item in value.values()),
    "object": lambda value: isinstance(value, dict),
    "objects": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "any": lambda _: True,
}


def read(body: Any, table: Table, where: str = "") -> dict[str, Any]:
    """The fields of `table` from `body`, null or absent ones as their defaults. Raises InvalidInput naming a field of the wrong type."""
    if not isinstance(body, dict):
        raise InvalidInput(f"invalid JSON: {where.rstrip('.') or 'the body'} must be an object")
    # Go matches field names without regard to case, and some clients rely on it.
    folded = {name.lower(): value for name, value in body.items()} if any(name not in table for name in body) else {}
    values = {}
    for name, (kind, default) in table.items():
        value = body.get(name)
        if value is None and folded:
            value = folded.get(name.lower())
        if value is not None:
            values[name] = _check(value, kind, f"{where}{name}")
        else:
            values[name] = copy.deepcopy(default) if isinstance(default, (dict, list)) else default
    return values


def _check(value: Any, kind: str, name: str) -> Any:
    if kind == "words" and isinstance(value, str):
        return [value]
    if not _FITS[kind](value):
        raise InvalidInput(f"invalid JSON: field {name}: cannot use {_type(value)} as {kind}")
    _no_nul(value, name)
    return {key: {} for key in value} if kind == "set" else value


def _no_nul(value: Any, name: str) -> None:
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise InvalidInput(f"invalid field {name}: a NUL byte cannot be passed on")


def _type(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}.get(type(value), "null")


def container_config(body: Any) -> dict[str, Any]:
    config = read(body, CONFIG)
    for name in ("WorkingDir",):
        if config[name] and not config[name].startswith("/"):
            raise InvalidInput(f"the working directory '{config[name]}' is invalid, it needs to be an absolute path")
    for item in config["Env"] or ():
        if not item or item.startswith("="):
            raise InvalidInput(f"invalid environment variable: {item}")
    for port in config["ExposedPorts"] or ():
        parse_port(port)
    if config["Hostname"] and (
        len(config["Hostname"]) > 63 or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", config["Hostname"])
    ):
        raise InvalidInput(f"invalid hostname format: {config['Hostname'][:80]}")
    return config


def host_config(body: Any) -> dict[str, Any]:
    host = read({} if body is None else body, HOST, "HostConfig.")
    for name in ("NetworkMode", "CgroupnsMode", "IpcMode", "Runtime"):
        host[name] = host[name] or HOST[name][1]
    if host["NetworkMode"] == "default":
        host["NetworkMode"] = "bridge"
    if host["Privileged"]:
        host["MaskedPaths"] = host["ReadonlyPaths"] = None
        host["SecurityOpt"] = host["SecurityOpt"] if host["SecurityOpt"] is not None else ["label=disable"]
    else:
        host["MaskedPaths"] = list(MASKED_PATHS) if host["MaskedPaths"] is None else host["MaskedPaths"]
        host["ReadonlyPaths"] = list(READONLY_PATHS) if host["ReadonlyPaths"] is None else host["ReadonlyPaths"]
    host["ShmSize"] = host["ShmSize"] or SHM_DEFAULT
    requests.check(host["DeviceRequests"] or ())
    host["Devices"] = [read(device, DEVICE, "HostConfig.Devices.") for device in host["Devices"]]
    host["PidsLimit"] = host["PidsLimit"] or None
    if host["MemorySwappiness"] == -1:  # the docker CLI's "not set"
        host["MemorySwappiness"] = None
    host["PortBindings"] = port_bindings(host["PortBindings"])
    if host["Memory"] > 0 and not host["MemorySwap"]:
        host["MemorySwap"] = 2 * host["Memory"]  # as much swap as memory
    host["LogConfig"] = log_config(host["LogConfig"])
    host["RestartPolicy"] = restart_policy(host["RestartPolicy"])
    if host["AutoRemove"] and host["RestartPolicy"]["Name"] not in {"", "no"}:
        raise InvalidInput("can't create 'AutoRemove' container with restart policy")
    if host["Isolation"].lower() not in {"", "default"}:
        raise InvalidInput(f"invalid isolation '{host['Isolation']}' on linux: only 'default' is there")
    if host["StorageOpt"]:
        raise InvalidInput("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    if host["ShmSize"] < 0:
        raise InvalidInput("SHM size can not be less than 0")
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise InvalidInput(f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]")
    check_modes(host)
    check_resources(host)
    return host


def check_modes(host: Mapping[str, Any]) -> None:
    """Raises InvalidInput, in Docker's words, for a namespace to share that there is not."""
    for field, (name, known) in MODES.items():
        mode = host[field]
        kind, _, other = mode.partition(":")
        if (mode not in known or mode == "container") and not (kind == "container" and other and kind in known):
            raise InvalidInput(f"invalid {name}: {mode}")
    if host["NetworkMode"] == "container:":
        raise InvalidInput("invalid container format container:<name|id>")


def check_resources(host: Mapping[str, Any]) -> None:
    """Docker's rules on limits that go together. Raises InvalidInput with Docker's words, NotSupported."""
    if host["CpuRealtimePeriod"] or host["CpuRealtimeRuntime"]:
        raise NotSupported("real-time scheduling limits (CpuRealtimePeriod, CpuRealtimeRuntime) are not supported")
    if not host["CgroupParent"].isprintable():
        raise InvalidInput(f"invalid cgroup parent {host['CgroupParent']!r}: it must be a path")
    from_host_config(host)
    if host["Memory"] < 0:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    memory, swap, reservation = host["Memory"], host["MemorySwap"], host["MemoryReservation"]
    if memory and 0 < swap < memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory and reservation and memory < reservation:
        raise InvalidInput("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = host["MemorySwappiness"]
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidInput(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    available = os.cpu_count() or 1
    if host["NanoCpus"] < 0 or host["NanoCpus"] > available * NS:
        raise InvalidInput(f"range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available")
    _check_cpuset("cpus", host["CpusetCpus"], available)
    _check_cpuset("mems", host["CpusetMems"], 1 + _last_memory_node() if host["CpusetMems"] else 0)
    if host["CpuPeriod"] and not 1000 <= host["CpuPeriod"] <= 1_000_000:
        raise InvalidInput("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host["CpuQuota"] < 1000:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for limit in host["Ulimits"] or ():
        if not isinstance(limit.get("Name"), str) or not all(type(limit.get(name, 0)) is int for name in ("Soft", "Hard")):
            raise InvalidInput(f"invalid ulimit: {limit}")
        if limit.get("Hard", 0) != -1 and (limit.get("Soft", 0) > limit.get("Hard", 0) or limit.get("Soft", 0) == -1):
            raise InvalidInput(f"ulimit soft limit must be less than or equal to hard limit: {limit.get('Soft')} > {limit.get('Hard')}")


def _check_cpuset(kind: str, text: str, available: int) -> None:
    if text and not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", text, re.ASCII):
        raise InvalidInput(f"Invalid value {text} for cpuset {kind}")
    if any(int(number) >= available for number in re.findall(r"[0-9]+", text)):
        what = {"cpus": "CPUs", "mems": "memory nodes"}[kind]
        raise InvalidInput(f"Requested {what} are not available - requested {text}, available: 0-{available - 1}")


def _last_memory_node() -> int:
    try:
        with open("/sys/devices/system/node/online", encoding="ascii") as file:
            return int(re.split("[-,\n]", file.read().strip())[-1])
    except (OSError, ValueError):
        return 0  # a kernel without NUMA has one


def restart_policy(given: Any) -> dict[str, Any]:
    policy = read(given, _RESTART_POLICY, "RestartPolicy.")
    name, retries = policy["Name"] or "no", policy["MaximumRetryCount"]
    if name not in RESTART_POLICIES:
        raise InvalidInput(f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'")
    if retries < 0:
        raise InvalidInput("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != "on-failure":
        raise InvalidInput("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    return {"Name": name, "MaximumRetryCount": retries}


def parse_port(text: str) -> tuple[int, str]:
    """Reads "80/tcp" as (80, "tcp"). Raises InvalidInput."""
    match = _PORT.fullmatch(text)
    if not match or match[2] or int(match[1]) > 65535:
        raise InvalidInput(f'invalid port specification: "{text}"')
    return int(match[1]), (match[3] or "tcp").lower()


def port_bindings(given: Any) -> dict[str, list[dict[str, str]]]:
    """{"80/tcp": [{"HostIp", "HostPort"}]}: every key with its protocol, every list there."""
    if not isinstance(given, dict):
        raise InvalidInput("invalid JSON: field HostConfig.PortBindings: must be an object")
    bindings: dict[str, list[dict[str, str]]] = {}
    for key, wanted in given.items():
        port, protocol = parse_port(key)
        found = bindings.setdefault(f"{port}/{protocol}", [])
        if wanted is not None and not isinstance(wanted, list):
            raise InvalidInput(f"invalid port binding for {key}: must be a list")
        for item in wanted or [{}]:
            found.append(_binding(key, item))
    return bindings


def _binding(key: str, item: Any) -> dict[str, str]:
    item = item or {}
    if not isinstance(item, dict):
        raise InvalidInput(f"invalid port binding for {key}: must be an object")
    address, port = item.get("HostIp") or "", str(item.get("HostPort") or "")
    if not isinstance(address, str) or not re.fullmatch(r"(?:[0-9]{1,5}(?:-[0-9]{1,5})?)?", port, re.ASCII):
        raise InvalidInput(f'invalid port specification: "{port}"')
    if any(int(part) > 65535 for part in port.split("-") if part):
        raise InvalidInput(f'invalid port specification: "{port}"')
    return {"HostIp": address, "HostPort": port}
