"""A container of a pod as the body of the engine's create: what the pod says, in Docker's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll import units
from atoll.client.objects import Object
from atoll.config import Instance
from atoll.images import Image
from atoll.node.pods import model, security
from atoll.node.pods.env import expand_all

CPU_PERIOD_US = 100_000
SHARES_PER_CPU = 1024
SHARES_MIN, SHARES_MAX = 2, 262_144
LOG_MAX_SIZE = "10m"  # kubelet's containerLogMaxSize and containerLogMaxFiles
LOG_MAX_FILES = "5"
_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path at a place in the container."""

    source: Path
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = False  # read-only, then, is all that is mounted below as well (recursiveReadOnly)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pod's containers live."""

    sandbox: str
    network: str  # HostConfig.NetworkMode
    hostname: str
    domainname: str
    files: tuple[Mount, ...]  # /etc/hosts and its like


def container_body(
    pod: Object,
    container: Object,
    attempt: int,
    image: Image,
    place: Place,
    *,
    env: Mapping[str, str],
    mounts: Iterable[Mount],
    instance: Instance,
    memory_capacity: int,
    may_lower_oom: bool,
    pid_mode: str = "",
    userns_mode: str = "",
    runtime: str = "",
) -> dict[str, Any]:
    """The body of POST /containers/create. Raises ConfigError for what cannot be done."""
    spec, meta = pod["spec"], pod["metadata"]
    command = expand_all(container.get("command") or (), env)
    args = expand_all(container.get("args") or (), env)
    own = list(mounts)
    taken = {mount.target for mount in own}
    everything = [*(file for file in place.files if file.target not in taken), *own]
    return {
        "Image": container["image"],
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Entrypoint": command or None,
        "Cmd": args or None,
        "WorkingDir": container.get("workingDir") or "",
        "User": security.user_of(spec, container, image),
        "Tty": bool(container.get("tty")),
        "OpenStdin": bool(container.get("stdin")),
        "StdinOnce": bool(container.get("stdinOnce")),
        "Hostname": place.hostname,
        "Domainname": place.domainname,
        "StopSignal": (container.get("lifecycle") or {}).get("stopSignal") or "",
        "Healthcheck": {"Test": ["NONE"]},  # pods have probes
        "Labels": {
            model.LABEL_NAME: meta["name"],
            model.LABEL_NAMESPACE: meta["namespace"],
            model.LABEL_UID: meta["uid"],
            model.LABEL_CONTAINER: container["name"],
            model.LABEL_TYPE: "container",
            model.LABEL_SANDBOX: place.sandbox,
            model.LABEL_HASH: model.spec_hash(container),
            model.LABEL_ATTEMPT: str(attempt),
        },
        "HostConfig": {
            **security.host_config(spec, container, instance),
            **resources(pod, container, memory_capacity, may_lower_oom=may_lower_oom),
            "NetworkMode": place.network,
            "PidMode": pid_mode or ("host" if spec.get("hostPID") else ""),
            "UsernsMode": userns_mode,
            "Runtime": runtime,
            "IpcMode": "host" if spec.get("hostIPC") else "private",
            "Mounts": [_mount(mount) for mount in everything],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_MAX_SIZE, "max-file": LOG_MAX_FILES}},
        },
    }


def container_name(pod: Object, container: Object, attempt: int) -> str:
    """cri-dockerd's pattern, by which people find pods in `docker ps`."""
    meta = pod["metadata"]
    return f"k8s_{container['name']}_{meta['name']}_{meta['namespace']}_{meta['uid']}_{attempt}"


def resources(pod: Object, container: Object, memory_capacity: int, *, may_lower_oom: bool) -> dict[str, Any]:
    """Limits and shares of HostConfig."""
    asked = container.get("resources") or {}
    limits, requests = asked.get("limits") or {}, asked.get("requests") or {}
    cpu_limit = units.parse_quantity(limits.get("cpu", 0))
    cpu_request = units.parse_quantity(requests.get("cpu", limits.get("cpu", 0)))
    memory = int(units.parse_quantity(limits.get("memory", 0)))
    request = int(units.parse_quantity(requests.get("memory", limits.get("memory", 0))))
    qos = (pod.get("status") or {}).get("qosClass") or "BestEffort"
    found: dict[str, Any] = {
        "CpuShares": min(max(int(cpu_request * SHARES_PER_CPU), SHARES_MIN), SHARES_MAX),
        "OomScoreAdj": security.oom_score(qos, request, memory_capacity, may_lower=may_lower_oom),
    }
    if cpu_limit:
        found |= {"CpuPeriod": CPU_PERIOD_US, "CpuQuota": max(int(cpu_limit * CPU_PERIOD_US), 1000)}
    if memory:
        found |= {"Memory": memory, "MemorySwap": memory}
    return found


def propagation(mount: Object) -> str:
    return _PROPAGATION[mount.get("mountPropagation") or "None"]


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": mount.propagation, "ReadOnlyNonRecursive": mount.read_only and not mount.recursive},
    }
