"""What the Dockerfile frontend is asked for (`dockerfile.v0`): its attributes, read once into the builder's own options.

The names are those every BuildKit client sends: `filename`, `target`, `build-arg:NAME`, `label:NAME`, `context:NAME` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.build.arguments import INLINE_CACHE
from atoll.build.options import Options
from atoll.errors import InvalidInput, NotSupported

FRONTEND = "dockerfile.v0"
GATEWAY = "gateway.v0"
PULL = "pull"


@dataclass(frozen=True, slots=True)
class Request:
    """`context_directory` and `dockerfile_directory` are the client's names of them; with a `remote` context the latter may be "".

    `subrequest` asks for something else than an image.
    """

    options: Options
    context_directory: str
    dockerfile_directory: str
    remote: str
    subrequest: str


def read_request(frontend: str, attributes: Mapping[str, str]) -> Request:
    """Raises InvalidInput naming the attribute, NotSupported."""
    if frontend == GATEWAY:
        raise NotSupported(f"the frontend image {attributes.get('source')} is not supported: the builder reads Dockerfiles itself")
    if frontend != FRONTEND:
        raise NotSupported(f"the frontend {frontend or 'of a ready graph (LLB)'} is not supported: build from a Dockerfile")
    remote = attributes.get("context", "")
    return Request(
        read_options(attributes),
        attributes.get("contextkey") or "context",
        attributes.get("dockerfilekey") or ("" if remote else "dockerfile"),
        remote,
        attributes.get("requestid", ""),
    )


def read_options(attributes: Mapping[str, str]) -> Options:
    """Raises InvalidInput, NotSupported."""
    platform = attributes.get("platform", "")
    if "," in platform:
        raise NotSupported(f"building for several platforms at once ({platform}) is not supported: this machine builds for its own")
    no_cache = attributes.get("no-cache")
    return Options(
        dockerfile=attributes.get("filename") or "Dockerfile",
        target=attributes.get("target", ""),
        arguments=_prefixed(attributes, "build-arg:"),
        labels=_prefixed(attributes, "label:"),
        network=attributes.get("force-network-mode") or "default",
        platform=platform,
        remote=attributes.get("context", ""),
        contexts={name.lower(): value for name, value in _prefixed(attributes, "context:").items()},
        no_cache=no_cache == "",
        uncached=tuple(name.strip().lower() for name in (no_cache or "").split(",") if name.strip()),
        pull=attributes.get("image-resolve-mode") == PULL,
        limits=_limits(attributes),
        like_buildkit=True,
        inline_cache=attributes.get(f"build-arg:{INLINE_CACHE}", "").lower() in ("1", "true"),
    )


def _prefixed(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)}


def _limits(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Of the steps, as HostConfig has them."""
    limits: dict[str, Any] = {}
    if hosts := [word for word in attributes.get("add-hosts", "").split(",") if word]:
        limits["ExtraHosts"] = [word.replace("=", ":", 1) for word in hosts]
    if size := attributes.get("shm-size"):
        limits["ShmSize"] = _number(size, "shm-size")
    if parent := attributes.get("cgroup-parent"):
        limits["CgroupParent"] = parent
    if words := [word for word in attributes.get("ulimit", "").split(",") if word]:
        limits["Ulimits"] = [_ulimit(word) for word in words]
    return limits


def _ulimit(word: str) -> dict[str, Any]:
    name, _, values = word.partition("=")
    soft, colon, hard = values.partition(":")
    return {"Name": name, "Soft": _number(soft, "ulimit"), "Hard": _number(hard if colon else soft, "ulimit")}


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"invalid {name}: {text} is no number") from None
