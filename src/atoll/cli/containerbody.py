"""The request of `run` and `create`: from their flags to the body of POST /containers/create (Docker Engine API, ContainerCreate).

What few commands use (mounts, devices) is in modules that are loaded only where the flags are given.
"""

from __future__ import annotations

from atoll.cli.flags import Options, UsageError
from atoll.cli.keyvalues import environment, lines_of, mapping
from atoll.cli.networkwords import endpoints, network_name, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEVICE_FLAGS = (
    "blkio-weight",
    "blkio-weight-device",
    "device",
    "device-read-bps",
    "device-read-iops",
    "device-write-bps",
    "device-write-iops",
    "gpus",
    "ulimit",
)


def body(options: Options, image: str, command: list[str]) -> dict[str, Any]:
    """Raises UsageError naming the flag that is wrong."""
    attached = _attached(options)
    tty, interactive = options["tty"], options["interactive"]
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": command or None,
        "Entrypoint": None if options["entrypoint"] is None else [options["entrypoint"]] if options["entrypoint"] else [""],
        "Env": environment(options),
        "Labels": mapping([*lines_of(options["label-file"], "label-file"), *options["label"]]),
        "Hostname": options["hostname"] or "",
        "Domainname": options["domainname"] or "",
        "User": options["user"] or "",
        "WorkingDir": options["workdir"] or "",
        "Tty": tty,
        "OpenStdin": interactive,
        "StdinOnce": interactive and "stdin" in attached,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Volumes": {word: {} for word in options["volume"] if ":" not in word} or None,
        "Healthcheck": _healthcheck(options),
        "StopSignal": options["stop-signal"],
        "StopTimeout": options["stop-timeout"],
    }
    exposed, bindings = ports(options)
    config["ExposedPorts"] = exposed or None
    config["HostConfig"] = _host(options, bindings)
    config["NetworkingConfig"] = {"EndpointsConfig": endpoints(options)}
    return config


def _attached(options: Options) -> frozenset[str]:
    if options["attach"]:
        names = frozenset(word.lower() for word in options["attach"])
        if wrong := names - {"stdin", "stdout", "stderr"}:
            raise UsageError(f'invalid argument "{min(wrong)}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR')
        if options.get("detach"):
            raise UsageError("conflicting options: cannot specify both --attach and --detach")
        return names
    if options.get("detach"):
        return frozenset()
    return frozenset({"stdout", "stderr"} | ({"stdin"} if options["interactive"] else set()))


def _duration(options: Options, flag: str) -> int:
    if options[flag] is None:
        return 0
    from atoll.errors import InvalidInput
    from atoll.units import parse_duration

    try:
        return parse_duration(options[flag])
    except InvalidInput as error:
        raise UsageError(f'invalid argument "{options[flag]}" for "--{flag}" flag: {error}') from error


def size(options: Options, flag: str) -> int:
    """Bytes; -1 for the "-1" that lifts a limit, 0 where the flag is not given."""
    value = options[flag]
    if value is None:
        return 0
    if value == "-1":
        return -1
    from atoll.errors import InvalidInput
    from atoll.units import parse_bytes

    try:
        return parse_bytes(value)
    except InvalidInput as error:
        raise UsageError(f'invalid argument "{value}" for "--{flag}" flag: {error}') from error


def _healthcheck(options: Options) -> dict[str, Any] | None:
    fields = {
        "Interval": _duration(options, "health-interval"),
        "Timeout": _duration(options, "health-timeout"),
        "StartPeriod": _duration(options, "health-start-period"),
        "StartInterval": _duration(options, "health-start-interval"),
        "Retries": options["health-retries"] or 0,
    }
    if options["no-healthcheck"]:
        if options["health-cmd"] or any(fields.values()):
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if options["health-cmd"]:
        return {"Test": ["CMD-SHELL", options["health-cmd"]], **fields}
    return fields if any(fields.values()) else None


def _host(options: Options, bindings: dict[str, Any]) -> dict[str, Any]:
    networks = options["network"] + options["net"]
    host: dict[str, Any] = {
        "Annotations": mapping(options["annotation"]),
        "AutoRemove": options["rm"],
        "CapAdd": options["cap-add"],
        "CapDrop": options["cap-drop"],
        "CgroupParent": options["cgroup-parent"] or "",
        "CgroupnsMode": options["cgroupns"] or "",
        "ContainerIDFile": options["cidfile"] or "",
        "CpuPeriod": options["cpu-period"] or 0,
        "CpuQuota": options["cpu-quota"] or 0,
        "CpuRealtimePeriod": options["cpu-rt-period"] or 0,
        "CpuRealtimeRuntime": options["cpu-rt-runtime"] or 0,
        "CpuShares": options["cpu-shares"] or 0,
        "CpusetCpus": options["cpuset-cpus"] or "",
        "CpusetMems": options["cpuset-mems"] or "",
        "DeviceCgroupRules": options["device-cgroup-rule"] or None,
        "Dns": options["dns"],
        "DnsOptions": options["dns-option"] + options["dns-opt"],
        "DnsSearch": options["dns-search"],
        "ExtraHosts": [word.replace("=", ":", 1) for word in options["add-host"]],
        "GroupAdd": options["group-add"],
        "Init": options.given.get("init"),
        "IpcMode": options["ipc"] or "",
        "Isolation": options["isolation"] or "",
        "Links": options["link"],
        "LogConfig": {"Type": options["log-driver"] or "", "Config": mapping(options["log-opt"])},
        "Memory": size(options, "memory"),
        "MemoryReservation": size(options, "memory-reservation"),
        "MemorySwap": size(options, "memory-swap"),
        "MemorySwappiness": options["memory-swappiness"],
        "NanoCpus": nano_cpus(options["cpus"]),
        "NetworkMode": network_name(networks[0]) if networks else "default",
        "OomKillDisable": options["oom-kill-disable"],
        "OomScoreAdj": options["oom-score-adj"] or 0,
        "PidMode": options["pid"] or "",
        "PidsLimit": options["pids-limit"],
        "PortBindings": bindings,
        "Privileged": options["privileged"],
        "PublishAllPorts": options["publish-all"],
        "ReadonlyRootfs": options["read-only"],
        "RestartPolicy": restart_policy(options["restart"]),
        "Runtime": options["runtime"] or "",
        "SecurityOpt": _security(options["security-opt"]),
        "ShmSize": size(options, "shm-size"),
        "StorageOpt": mapping(options["storage-opt"]) or None,
        "Sysctls": mapping(options["sysctl"]),
        "UTSMode": options["uts"] or "",
        "UsernsMode": options["userns"] or "",
        "VolumesFrom": options["volumes-from"],
        **_mounts(options),
        **_devices(options),
    }
    columns, lines = _console(options)
    host["ConsoleSize"] = [lines, columns]
    return host


def _mounts(options: Options) -> dict[str, Any]:
    if not (options["volume"] or options["mount"] or options["tmpfs"]):
        return {}
    from atoll.cli.mountwords import bind, mount

    return {
        "Binds": [bind(word) for word in options["volume"] if ":" in word],
        "Mounts": [mount(word) for word in options["mount"]],
        "Tmpfs": {path: rest for path, _, rest in (word.partition(":") for word in options["tmpfs"])},
        "VolumeDriver": options["volume-driver"] or "",
    }


def _devices(options: Options) -> dict[str, Any]:
    if not any(flag in options for flag in DEVICE_FLAGS):
        return {}
    from atoll.cli.devicewords import block_limits, device, requests, ulimit

    return {
        "Devices": [device(word) for word in options["device"] if "=" not in word],
        "DeviceRequests": requests(options),
        "Ulimits": [ulimit(word) for word in options["ulimit"]],
        **block_limits(options),
    }


def _console(options: Options) -> tuple[int, int]:
    if not options["tty"]:
        return 0, 0
    from atoll.cli.terminal import size as window

    return window()


def nano_cpus(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return round(float(text) * 1e9)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--cpus" flag: failed to parse {text} as a rational number') from None


def restart_policy(text: str | None) -> dict[str, Any]:
    if not text:
        return {"Name": "no", "MaximumRetryCount": 0}
    name, _, count = text.partition(":")
    if count and (name != "on-failure" or not count.isdigit()):
        raise UsageError("invalid restart policy format: maximum retry count must be an integer, and goes with on-failure only")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _security(words: list[str]) -> list[str]:
    """A seccomp profile is sent as its text: the engine must not read the client's files."""
    found = []
    for word in words:
        key, separator, value = word.partition("=") if "=" in word else word.partition(":")
        if key == "seccomp" and value not in ("unconfined", "builtin", "default"):
            try:
                with open(value, encoding="utf-8") as file:
                    value = file.read()
            except OSError as error:
                raise UsageError(f"opening seccomp profile ({value}) failed: {error.strerror}") from error
            word = f"seccomp={value}"  # noqa: PLW2901
        elif not separator and word != "no-new-privileges":
            raise UsageError(f'invalid --security-opt: "{word}"')
        found.append(word)
    return found
