"""What files a volume made of API objects holds: configMap, secret, downwardAPI, and projected, which joins them."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from atoll.client.objects import Object
from atoll.client.resources import CONFIG_MAPS, SECRETS, Resource
from atoll.errors import InvalidInput
from atoll.node.pods.env import secret_bytes
from atoll.node.pods.fields import field_value, resource_value
from atoll.node.volumes.atomic import File
from atoll.node.volumes.errors import VolumeError

Fetch = Callable[[Resource, str], Awaitable[Object | None]]
DEFAULT_MODE = 0o644
TOKEN_MODE = 0o644
TOKEN_OWNED_MODE = 0o600
PAYLOAD_KINDS = ("configMap", "secret", "downwardAPI", "projected")


class Tokens(Protocol):
    async def get(self, pod: Object, audience: str, seconds: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Source:
    """What payloads are read from."""

    fetch: Fetch
    tokens: Tokens
    addresses: Mapping[str, str]
    allocatable: Mapping[str, str]


async def payload(pod: Object, volume: Object, source: Source) -> dict[str, File]:
    """Files by relative path. Raises VolumeError naming what is missing."""
    for kind in ("configMap", "secret", "downwardAPI"):
        if kind in volume:
            spec = volume[kind]
            return await _one(kind, pod, spec, spec.get("defaultMode", DEFAULT_MODE), source)
    spec = volume["projected"]
    mode = spec.get("defaultMode", DEFAULT_MODE)
    files: dict[str, File] = {}
    for part in spec.get("sources") or ():
        kinds = [kind for kind in ("configMap", "secret", "downwardAPI", "serviceAccountToken") if kind in part]
        if not kinds:
            raise VolumeError(
                f"projected source {', '.join(part)} is not supported: use configMap, secret, downwardAPI or serviceAccountToken"
            )
        files |= await _one(kinds[0], pod, part[kinds[0]], mode, source)
    return files


async def _one(kind: str, pod: Object, spec: Object, mode: int, source: Source) -> dict[str, File]:
    if kind == "downwardAPI":
        return _downward(pod, spec, mode, source)
    if kind == "serviceAccountToken":
        return await _token(pod, spec, source)
    resource = CONFIG_MAPS if kind == "configMap" else SECRETS
    name = spec.get("name") or spec.get("secretName") or ""
    found = await source.fetch(resource, name)
    if found is None:
        if spec.get("optional"):
            return {}
        raise VolumeError(f'{resource.kind.lower()} "{name}" not found')
    data = _data(found, is_secret=kind == "secret")
    if not spec.get("items"):
        return {key: File(value, mode) for key, value in data.items()}
    files = {}
    for item in spec["items"]:
        if item["key"] in data:
            files[_path(item["path"])] = File(data[item["key"]], item.get("mode", mode))
        elif not spec.get("optional"):
            raise VolumeError(f"references non-existent {resource.kind.lower()} key: {item['key']}")
    return files


def _data(obj: Object, *, is_secret: bool) -> dict[str, bytes]:
    if is_secret:
        return {key: secret_bytes(value) for key, value in (obj.get("data") or {}).items()}
    data = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return data | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


def _downward(pod: Object, spec: Object, mode: int, source: Source) -> dict[str, File]:
    files = {}
    for item in spec.get("items") or ():
        try:
            if "fieldRef" in item:
                text = field_value(pod, item["fieldRef"]["fieldPath"], addresses=source.addresses)
            else:
                text = resource_value(pod, item["resourceFieldRef"], {"name": ""}, source.allocatable)
        except InvalidInput as error:
            raise VolumeError(str(error)) from error
        files[_path(item["path"])] = File(text.encode(), item.get("mode", mode))
    return files


async def _token(pod: Object, spec: Object, source: Source) -> dict[str, File]:
    token = await source.tokens.get(pod, spec.get("audience") or "", int(spec.get("expirationSeconds") or 3600))
    owner = _single_user(pod)
    mode = TOKEN_OWNED_MODE if owner is not None or _has_group(pod) else TOKEN_MODE
    return {_path(spec["path"]): File(token.encode(), mode, owner)}


def _has_group(pod: Object) -> bool:
    return (pod["spec"].get("securityContext") or {}).get("fsGroup") is not None


def _single_user(pod: Object) -> int | None:
    """The one user that all containers run as, if the spec says so: the token is theirs alone then."""
    spec = pod["spec"]
    default = (spec.get("securityContext") or {}).get("runAsUser")
    every = (*(spec.get("initContainers") or ()), *spec["containers"])
    users = {(container.get("securityContext") or {}).get("runAsUser", default) for container in every}
    user = users.pop() if len(users) == 1 else None
    return None if user is None or _has_group(pod) else int(user)


def _path(text: str) -> str:
    parts = text.split("/")
    if text.startswith("/") or ".." in parts or not text or parts[0].startswith(".."):
        raise VolumeError(f"invalid path {text!r} in a volume: it must be relative and stay inside")
    return text
