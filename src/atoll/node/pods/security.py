"""securityContext of pod and container to the fields of the engine's HostConfig and Config."""

from __future__ import annotations

from typing import Any

import orjson

from atoll.client.objects import Object
from atoll.config import Instance
from atoll.errors import InvalidInput
from atoll.images import Image
from atoll.node.pods.env import ConfigError

OOM_GUARANTEED = -997  # kubelet's qos policy
OOM_BEST_EFFORT = 1000


def user_of(spec: Object, container: Object, image: Image) -> str:
    """Docker's user[:group]. Raises ConfigError where runAsNonRoot would be broken."""
    pod, own = spec.get("securityContext") or {}, container.get("securityContext") or {}
    user = own.get("runAsUser", pod.get("runAsUser"))
    group = own.get("runAsGroup", pod.get("runAsGroup"))
    non_root = own.get("runAsNonRoot", pod.get("runAsNonRoot"))
    named = str(image.runtime_config.get("User") or "")
    if non_root:
        _check_non_root(user, named, container["name"])
    if user is None and group is None:
        return named
    chosen = str(user) if user is not None else named.partition(":")[0] or "0"
    return chosen if group is None else f"{chosen}:{group}"


def _check_non_root(user: int | None, named: str, name: str) -> None:
    if user == 0:
        raise ConfigError(f"container's runAsUser breaks non-root policy (container: {name})")
    if user is not None:
        return
    word = named.partition(":")[0]
    if word in ("", "0"):
        raise ConfigError(f"container has runAsNonRoot and image will run as root (container: {name})")
    if not word.isdigit():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({word}), cannot verify user is non-root (container: {name})"
        )


def groups_of(spec: Object) -> list[str]:
    pod = spec.get("securityContext") or {}
    groups = [*(pod.get("supplementalGroups") or ()), *([pod["fsGroup"]] if pod.get("fsGroup") is not None else [])]
    return [str(group) for group in dict.fromkeys(groups)]


def host_config(spec: Object, container: Object, instance: Instance) -> dict[str, Any]:
    own = container.get("securityContext") or {}
    capabilities = own.get("capabilities") or {}
    options = []
    privileged = bool(own.get("privileged"))
    if own.get("allowPrivilegeEscalation") is False and not privileged:
        options.append("no-new-privileges")
    profile = own.get("seccompProfile") or (spec.get("securityContext") or {}).get("seccompProfile") or {}
    if profile.get("type") == "Unconfined":
        options.append("seccomp=unconfined")
    elif profile.get("type") == "Localhost":
        options.append(f"seccomp={_local_profile(profile.get('localhostProfile') or '', instance)}")
    if own.get("procMount") == "Unmasked":
        options.append("systempaths=unconfined")
    sysctls = (spec.get("securityContext") or {}).get("sysctls") or ()
    return {
        "Privileged": privileged,
        "CapAdd": list(capabilities.get("add") or ()),
        "CapDrop": list(capabilities.get("drop") or ()),
        "ReadonlyRootfs": bool(own.get("readOnlyRootFilesystem")),
        "SecurityOpt": options,
        "GroupAdd": groups_of(spec),
        "Sysctls": {item["name"]: str(item["value"]) for item in sysctls},
    }


def _local_profile(name: str, instance: Instance) -> str:
    """The file below <home>/seccomp, as one line of JSON."""
    directory = instance.home / "seccomp"
    path = directory / name
    if not name or not path.resolve().is_relative_to(directory.resolve()):
        raise ConfigError(f"seccomp profile {name!r} must lie below {directory}")
    try:
        return orjson.dumps(orjson.loads(path.read_bytes())).decode()
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"cannot load seccomp profile {path}: {error}") from error


def oom_score(qos: str, memory_request: int, capacity: int, *, may_lower: bool) -> int:
    """The kubelet's: the less of the node a Burstable container asked for, the sooner it goes. Lowering needs CAP_SYS_RESOURCE."""
    if qos == "Guaranteed":
        return OOM_GUARANTEED if may_lower else 0
    if qos == "BestEffort":
        return OOM_BEST_EFFORT
    if capacity <= 0:
        raise InvalidInput("the node's memory is not known")
    return min(max(1000 - 1000 * memory_request // capacity, 1000 + OOM_GUARANTEED), OOM_BEST_EFFORT - 1)
