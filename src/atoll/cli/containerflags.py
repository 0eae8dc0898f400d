"""The flags of `run` and `create`, and the request body they make (Docker Engine API, ContainerCreate)."""

from __future__ import annotations

import os

from atoll.cli.flags import Flag, Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CREATE_FLAGS = (
    Flag("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)"),
    Flag("annotation", "", "list", "Add an annotation to the container (passed through to the OCI runtime)", "map"),
    Flag("attach", "a", "list", "Attach to STDIN, STDOUT or STDERR"),
    Flag("cap-add", "", "list", "Add Linux capabilities"),
    Flag("cap-drop", "", "list", "Drop Linux capabilities"),
    Flag("cgroupns", "", "string", "Cgroup namespace to use (host|private)"),
    Flag("cidfile", "", "string", "Write the container ID to the file"),
    Flag("cpu-period", "", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-shares", "c", "int", "CPU shares (relative weight)"),
    Flag("cpus", "", "string", "Number of CPUs", "decimal"),
    Flag("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("device", "", "list", "Add a host device to the container"),
    Flag("dns", "", "list", "Set custom DNS servers"),
    Flag("dns-option", "", "list", "Set DNS options"),
    Flag("dns-search", "", "list", "Set custom DNS search domains"),
    Flag("domainname", "", "string", "Container NIS domain name"),
    Flag("entrypoint", "", "string", "Overwrite the default ENTRYPOINT of the image"),
    Flag("env", "e", "list", "Set environment variables"),
    Flag("env-file", "", "list", "Read in a file of environment variables"),
    Flag("expose", "", "list", "Expose a port or a range of ports"),
    Flag("gpus", "", "string", "GPU devices to add to the container ('all' to pass all GPUs)", "gpu-request"),
    Flag("group-add", "", "list", "Add additional groups to join"),
    Flag("health-cmd", "", "string", "Command to run to check health"),
    Flag("health-interval", "", "string", "Time between running the check (ms|s|m|h)", "duration"),
    Flag("health-retries", "", "int", "Consecutive failures needed to report unhealthy"),
    Flag("health-start-interval", "", "string", "Time between running the check during the start period (ms|s|m|h)", "duration"),
    Flag("health-start-period", "", "string", "Start period for the container to initialize (ms|s|m|h)", "duration"),
    Flag("health-timeout", "", "string", "Maximum time to allow one check to run (ms|s|m|h)", "duration"),
    Flag("hostname", "h", "string", "Container host name"),
    Flag("init", "", "bool", "Run an init inside the container that forwards signals and reaps processes"),
    Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    Flag("ip", "", "string", "IPv4 address (e.g., 172.30.100.104)"),
    Flag("ipc", "", "string", "IPC mode to use"),
    Flag("label", "l", "list", "Set meta data on a container"),
    Flag("label-file", "", "list", "Read in a line delimited file of labels"),
    Flag("link", "", "list", "Add link to another container"),
    Flag("log-driver", "", "string", "Logging driver for the container"),
    Flag("log-opt", "", "list", "Log driver options"),
    Flag("mac-address", "", "string", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag("memory", "m", "string", "Memory limit", "bytes"),
    Flag("memory-reservation", "", "string", "Memory soft limit", "bytes"),
    Flag("memory-swap", "", "string", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", "bytes"),
    Flag("mount", "", "list", "Attach a filesystem mount to the container", "mount"),
    Flag("name", "", "string", "Assign a name to the container"),
    Flag("network", "", "list", "Connect a container to a network", "network"),
    Flag("net", "", "list", "Connect a container to a network", "network"),
    Flag("network-alias", "", "list", "Add network-scoped alias for the container"),
    Flag("no-healthcheck", "", "bool", "Disable any container-specified HEALTHCHECK"),
    Flag("oom-kill-disable", "", "bool", "Disable OOM Killer"),
    Flag("oom-score-adj", "", "int", "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("pid", "", "string", "PID namespace to use"),
    Flag("pids-limit", "", "int", "Tune container pids limit (set -1 for unlimited)"),
    Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
    Flag("privileged", "", "bool", "Give extended privileges to this container"),
    Flag("publish", "p", "list", "Publish a container's port(s) to the host"),
    Flag("publish-all", "P", "bool", "Publish all exposed ports to random ports"),
    Flag("pull", "", "string", "Pull image before creating (always, missing, never)"),
    Flag("quiet", "q", "bool", "Suppress the pull output"),
    Flag("read-only", "", "bool", "Mount the container's root filesystem as read only"),
    Flag("restart", "", "string", "Restart policy to apply when a container exits"),
    Flag("rm", "", "bool", "Automatically remove the container and its associated anonymous volumes when it exits"),
    Flag("runtime", "", "string", "Runtime to use for this container"),
    Flag("security-opt", "", "list", "Security Options"),
    Flag("shm-size", "", "string", "Size of /dev/shm", "bytes"),
    Flag("stop-signal", "", "string", "Signal to stop the container"),
    Flag("stop-timeout", "", "int", "Timeout (in seconds) to stop a container"),
    Flag("sysctl", "", "list", "Sysctl options", "map"),
    Flag("tmpfs", "", "list", "Mount a tmpfs directory"),
    Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
    Flag("ulimit", "", "list", "Ulimit options", "ulimit"),
    Flag("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("userns", "", "string", "User namespace to use"),
    Flag("uts", "", "string", "UTS namespace to use"),
    Flag("volume", "v", "list", "Bind mount a volume"),
    Flag("volumes-from", "", "list", "Mount volumes from the specified container(s)"),
    Flag("workdir", "w", "string", "Working directory inside the container"),
)


def lines_of(paths: list[str], flag: str) -> Iterable[str]:
    """The lines of --env-file and --label-file: no blanks, no comments."""
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise UsageError(f"--{flag}: open {path}: {(error.strerror or '').lower()}") from error
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.lstrip().removeprefix("\ufeff")
            if not entry or entry.startswith("#"):
                continue
            name = entry.partition("=")[0]
            if not name or any(space in name for space in " \t"):
                raise UsageError(f"--{flag}: {path}, line {number}: invalid name '{name}': white space is not allowed")
            yield entry


def environment(options: Options) -> list[str]:
    """--env-file then --env; a name without `=` takes the caller's own value, or is left out."""
    found = []
    for word in [*lines_of(options["env-file"], "env-file"), *options["env"]]:
        name, equals, _ = word.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {word}")
        if equals:
            found.append(word)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def mapping(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def body(options: Options, image: str, command: list[str]) -> dict[str, Any]:
    """The body of POST /containers/create. Raises UsageError naming the flag that is wrong."""
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
    exposed, bindings = _ports(options)
    config["ExposedPorts"] = exposed or None
    config["HostConfig"] = _host(options, bindings)
    networks = options["network"] + options["net"]
    config["NetworkingConfig"] = {"EndpointsConfig": _endpoints(options, networks)}
    return config


def _attached(options: Options) -> frozenset[str]:
    if options["attach"]:
        names = frozenset(word.lower() for word in options["attach"])
        if wrong := names - {"stdin", "stdout", "stderr"}:
            raise UsageError(f'invalid argument "{min(wrong)}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR')
        return names
    if options.get("detach"):
        return frozenset()
    return frozenset({"stdout", "stderr"} | ({"stdin"} if options["interactive"] else set()))


def _duration(options: Options, flag: str) -> int:
    if options[flag] is None:
        return 0
    from atoll.units import parse_duration

    return parse_duration(options[flag])


def _size(options: Options, flag: str) -> int:
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
    if options["no-healthcheck"]:
        return {"Test": ["NONE"]}
    fields = {
        "Interval": _duration(options, "health-interval"),
        "Timeout": _duration(options, "health-timeout"),
        "StartPeriod": _duration(options, "health-start-period"),
        "StartInterval": _duration(options, "health-start-interval"),
        "Retries": options["health-retries"] or 0,
    }
    if options["health-cmd"]:
        return {"Test": ["CMD-SHELL", options["health-cmd"]], **fields}
    return fields if any(fields.values()) else None


def _host(options: Options, bindings: dict[str, Any]) -> dict[str, Any]:
    networks = options["network"] + options["net"]
    first = _network_name(networks[0]) if networks else "default"
    host: dict[str, Any] = {
        "Annotations": mapping(options["annotation"]),
        "AutoRemove": options["rm"],
        "Binds": [word for word in options["volume"] if ":" in word],
        "CapAdd": options["cap-add"],
        "CapDrop": options["cap-drop"],
        "CgroupnsMode": options["cgroupns"] or "",
        "CpuPeriod": options["cpu-period"] or 0,
        "CpuQuota": options["cpu-quota"] or 0,
        "CpuShares": options["cpu-shares"] or 0,
        "CpusetCpus": options["cpuset-cpus"] or "",
        "CpusetMems": options["cpuset-mems"] or "",
        "Devices": [_device(word) for word in options["device"] if "=" not in word],
        "DeviceRequests": _device_requests(options),
        "Dns": options["dns"],
        "DnsOptions": options["dns-option"],
        "DnsSearch": options["dns-search"],
        "ExtraHosts": [word.replace("=", ":", 1) for word in options["add-host"]],
        "GroupAdd": options["group-add"],
        "Init": options["init"] or None,
        "IpcMode": options["ipc"] or "",
        "Links": options["link"],
        "LogConfig": {"Type": options["log-driver"] or "", "Config": mapping(options["log-opt"])},
        "Memory": _size(options, "memory"),
        "MemoryReservation": _size(options, "memory-reservation"),
        "MemorySwap": _size(options, "memory-swap"),
        "Mounts": [_mount(word) for word in options["mount"]],
        "NanoCpus": _nano_cpus(options["cpus"]),
        "NetworkMode": first,
        "OomKillDisable": options["oom-kill-disable"],
        "OomScoreAdj": options["oom-score-adj"] or 0,
        "PidMode": options["pid"] or "",
        "PidsLimit": options["pids-limit"],
        "PortBindings": bindings,
        "Privileged": options["privileged"],
        "PublishAllPorts": options["publish-all"],
        "ReadonlyRootfs": options["read-only"],
        "RestartPolicy": _restart(options["restart"]),
        "Runtime": options["runtime"] or "",
        "SecurityOpt": _security(options["security-opt"]),
        "ShmSize": _size(options, "shm-size"),
        "Sysctls": mapping(options["sysctl"]),
        "Tmpfs": {path: rest for path, _, rest in (word.partition(":") for word in options["tmpfs"])},
        "UTSMode": options["uts"] or "",
        "Ulimits": [_ulimit(word) for word in options["ulimit"]],
        "UsernsMode": options["userns"] or "",
        "VolumesFrom": options["volumes-from"],
    }
    columns, lines = _console(options)
    host["ConsoleSize"] = [lines, columns]
    return host


def _console(options: Options) -> tuple[int, int]:
    if not options["tty"]:
        return 0, 0
    from atoll.cli.terminal import size

    return size()


def _network_name(word: str) -> str:
    if "=" in word:
        return next((part[5:] for part in word.split(",") if part.startswith("name=")), word)
    return word


def _endpoints(options: Options, networks: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, word in enumerate(networks):
        endpoint: dict[str, Any] = {}
        if index == 0:
            if options["network-alias"]:
                endpoint["Aliases"] = options["network-alias"]
            if options["ip"]:
                endpoint["IPAMConfig"] = {"IPv4Address": options["ip"]}
            if options["mac-address"]:
                endpoint["MacAddress"] = options["mac-address"]
        if "=" in word:
            fields = [part.partition("=")[::2] for part in word.split(",")]
            aliases = [value for key, value in fields if key == "alias"]
            if aliases:
                endpoint["Aliases"] = aliases
            address = dict(fields).get("ip")
            if address:
                endpoint["IPAMConfig"] = {"IPv4Address": address}
        found[_network_name(word)] = endpoint
    if options["mac-address"] and not networks:
        found["default"] = {"MacAddress": options["mac-address"]}
    return found


def _nano_cpus(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return round(float(text) * 1e9)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--cpus" flag: failed to parse {text} as a rational number') from None


def _restart(text: str | None) -> dict[str, Any]:
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


def _device(word: str) -> dict[str, str]:
    source, _, rest = word.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not target.startswith("/"):
        target, permissions = source, target
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": permissions or "rwm"}


def _device_requests(options: Options) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = [{"Driver": "cdi", "DeviceIDs": [word]} for word in options["device"] if "=" in word]
    gpus = options["gpus"]
    if gpus:
        count = -1 if gpus == "all" else int(gpus) if gpus.isdigit() else 0
        identifiers = gpus.partition("device=")[2].strip('"').split(",") if "device=" in gpus else None
        requests.append({"Driver": "", "Count": count, "DeviceIDs": identifiers, "Capabilities": [["gpu"]], "Options": {}})
    return requests


def _ulimit(word: str) -> dict[str, Any]:
    name, equals, limits = word.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        low = int(soft)
        return {"Name": name, "Soft": low, "Hard": int(hard) if hard else low}
    except ValueError:
        raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: write name=soft[:hard]') from None
    finally:
        del equals


MOUNT_KEYS = {
    "source": "Source", "src": "Source", "target": "Target", "dst": "Target", "destination": "Target", "consistency": "Consistency",
}  # fmt: skip


def _mount(word: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Type": "volume"}
    for part in word.split(","):
        key, equals, value = part.strip().partition("=")
        key = key.lower()
        truth = not equals or value.lower() in ("true", "1")
        if key == "type":
            mount["Type"] = value.lower()
        elif key in MOUNT_KEYS:
            mount[MOUNT_KEYS[key]] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = truth
        elif key in ("bind-propagation", "bind-nonrecursive", "bind-recursive"):
            name = {"bind-propagation": "Propagation", "bind-nonrecursive": "NonRecursive", "bind-recursive": "ReadOnlyNonRecursive"}[key]
            mount.setdefault("BindOptions", {})[name] = value if key == "bind-propagation" else truth
        elif key in ("volume-nocopy", "volume-subpath", "volume-driver", "volume-label", "volume-opt"):
            _volume_option(mount.setdefault("VolumeOptions", {}), key, value, truth)
        elif key == "tmpfs-size":
            from atoll.units import parse_bytes

            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_bytes(value)
        elif key == "tmpfs-mode":
            mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
        else:
            raise UsageError(f"invalid argument \"{word}\" for \"--mount\" flag: unexpected key '{key}' in '{part}'")
    if not mount.get("Target"):
        raise UsageError(f'invalid argument "{word}" for "--mount" flag: target is required')
    if mount["Type"] == "bind" and mount.get("Source", "").startswith("."):
        mount["Source"] = os.path.abspath(mount["Source"])
    return mount


def _volume_option(found: dict[str, Any], key: str, value: str, truth: bool) -> None:
    if key == "volume-nocopy":
        found["NoCopy"] = truth
    elif key == "volume-subpath":
        found["Subpath"] = value
    elif key == "volume-driver":
        found.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-label":
        found.setdefault("Labels", {}).update(mapping([value]))
    else:
        found.setdefault("DriverConfig", {}).setdefault("Options", {}).update(mapping([value]))


def _ports(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for word in options["expose"]:
        ports, _, protocol = word.partition("/")
        for port in _range(ports, word):
            exposed[f"{port}/{protocol or 'tcp'}"] = {}
    for word in options["publish"]:
        for published, binding in parse_publish(word):
            exposed[published] = {}
            bindings.setdefault(published, []).append(binding)
    return exposed, bindings


def _range(text: str, word: str) -> range:
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise UsageError(f"invalid containerPort: {word}") from None
    if not 0 < low <= high < 65536:
        raise UsageError(f"invalid port: {word}: ports are 1 to 65535, ranges rise")
    return range(low, high + 1)


def parse_publish(word: str) -> Iterable[tuple[str, dict[str, str]]]:
    """`-p [ip:][host[-last]:]container[-last][/protocol]`, one pair for each port."""
    rest, _, protocol = word.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise UsageError(f"invalid proto: {protocol}")
    rest, _, inside = rest.rpartition(":")
    address, outside = "", ""
    if rest.startswith("["):
        address, _, outside = rest[1:].partition("]")
        outside = outside.removeprefix(":")
    elif rest:
        address, _, outside = rest.rpartition(":")
    if address and not _is_address(address):
        raise UsageError(f"invalid IP address: {address}")
    container = _range(inside, word)
    if not outside:
        return [(f"{port}/{protocol}", {"HostIp": address, "HostPort": ""}) for port in container]
    host = _range(outside, word)
    if len(container) == 1 and len(host) > 1:
        return [(f"{container[0]}/{protocol}", {"HostIp": address, "HostPort": outside})]
    if len(container) != len(host):
        raise UsageError(f"invalid ranges specified for container and host Ports: {inside} and {outside}")
    pairs = zip(container, host, strict=True)
    return [(f"{port}/{protocol}", {"HostIp": address, "HostPort": str(to)}) for port, to in pairs]


def _is_address(text: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False
