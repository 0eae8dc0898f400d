"""Images of pods: by pull policy, with the pod's credentials, and with a back-off for what cannot be pulled.

The engine's store is the node's store: what was built or loaded here is there at once. An image that was made here and never came from a
registry satisfies even the policy Always when no registry has it, since there is nothing newer to fetch.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.client.objects import Object
from atoll.client.recorder import EventType
from atoll.errors import AtollError, InvalidInput, Unavailable
from atoll.images import Image, ImageStore, parse

BACKOFF_BASE_S = 10.0  # kubelet's, for images
BACKOFF_MAX_S = 300.0
DEFAULT_REGISTRY = "docker.io"

Tell = Callable[[EventType, str, str], None]  # event type, reason, message


class PullError(AtollError):
    """`reason` is the waiting reason the status shows."""

    def __init__(self, reason: str, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(slots=True)
class _Failure:
    message: str
    delay: float
    until: float


class Pulls:
    def __init__(self, images: ImageStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._images = images
        self._clock = clock
        self._failures: dict[str, _Failure] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def has(self, container: Object) -> bool:
        """Whether no pull is due."""
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        return policy != "Always" and self._find(container["image"]) is not None

    def _find(self, name: str) -> Image | None:
        try:
            return self._images.find(name)
        except InvalidInput as error:
            reason = f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": {error}'
            raise PullError("InvalidImageName", reason, BACKOFF_MAX_S) from None

    async def ensure(self, container: Object, secrets: Iterable[Object], tell: Tell) -> Image:
        """The container's image, pulled if its policy says so. Raises PullError."""
        name = container["image"]
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        present = self._find(name)
        if present is not None and policy != "Always":
            tell("Normal", "Pulled", f'Container image "{name}" already present on machine and can be accessed by the pod')
            return present
        if policy == "Never":
            tell("Warning", "ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never')
            message = f'Container image "{name}" is not present with pull policy of Never'
            raise PullError("ErrImageNeverPull", message, BACKOFF_BASE_S)
        failure = self._failures.get(name)
        now = self._clock()
        if failure is not None and failure.until > now:
            tell("Normal", "BackOff", f'Back-off pulling image "{name}"')
            message = f'Back-off pulling image "{name}": ErrImagePull: {failure.message}'
            raise PullError("ImagePullBackOff", message, failure.until - now)
        async with self._locks.setdefault(name, asyncio.Lock()):
            return await self._pull(name, present, list(secrets), tell)

    async def _pull(self, name: str, present: Image | None, secrets: list[Object], tell: Tell) -> Image:
        tell("Normal", "Pulling", f'Pulling image "{name}"')
        began = self._clock()
        try:
            image = await self._try_each(name, credentials(name, secrets))
        except AtollError as error:
            if present is not None and (not present.repo_digests or isinstance(error, Unavailable)):
                why = "was made on this machine" if not present.repo_digests else "is there, and its registry does not answer"
                tell("Normal", "Pulled", f'Container image "{name}" {why}: {error}')
                return present
            before = self._failures.get(name)
            delay = min(before.delay * 2, BACKOFF_MAX_S) if before else BACKOFF_BASE_S
            self._failures[name] = _Failure(str(error), delay, self._clock() + delay)
            tell("Warning", "Failed", f'Failed to pull image "{name}": {error}')
            tell("Warning", "Failed", "Error: ErrImagePull")
            raise PullError("ErrImagePull", str(error), 1.0) from error
        self._failures.pop(name, None)
        took = self._clock() - began
        tell("Normal", "Pulled", f'Successfully pulled image "{name}" in {took:.3g}s. Image size: {image.size} bytes.')
        return image

    async def _try_each(self, name: str, auths: list[dict[str, Any] | None]) -> Image:
        for auth in auths[:-1]:
            try:
                return await self._images.pull(name, auth=auth)
            except AtollError:
                continue
        return await self._images.pull(name, auth=auths[-1])


def credentials(image: str, secrets: Iterable[Object]) -> list[dict[str, Any] | None]:
    """What to try in turn: the entries of the pull secrets for the image's registry; without one, nobody's."""
    host = parse(image).domain
    found: list[dict[str, Any] | None] = []
    for secret in secrets:
        data = secret.get("data") or {}
        for key, inner in ((".dockerconfigjson", "auths"), (".dockercfg", None)):
            if key not in data:
                continue
            try:
                document = orjson.loads(base64.b64decode(data[key]))
                entries = document.get(inner) or {} if inner else document
                found += [_auth(entry) for server, entry in entries.items() if _is_for(server, host)]
            except (ValueError, AttributeError, binascii.Error):
                continue
    return found or [None]


def _is_for(server: str, host: str) -> bool:
    bare = server.partition("://")[2] or server
    bare = bare.partition("/")[0]
    return bare == host or (host == DEFAULT_REGISTRY and bare in ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"))


def _auth(entry: dict[str, Any]) -> dict[str, Any]:
    if entry.get("username"):
        return {"username": entry["username"], "password": entry.get("password", "")}
    user, _, password = base64.b64decode(entry.get("auth") or "").decode(errors="replace").partition(":")
    return {"username": user, "password": password} | ({"identitytoken": entry["identitytoken"]} if entry.get("identitytoken") else {})
