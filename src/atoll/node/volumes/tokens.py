"""Service-account tokens of pods: bound to the pod, kept in memory, asked for anew at four fifths of their life (kubelet's rule)."""

from __future__ import annotations

import calendar
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from atoll.client.objects import Object
from atoll.client.protocol import Client
from atoll.client.resources import SERVICE_ACCOUNTS
from atoll.errors import AtollError
from atoll.node.volumes.errors import VolumeError

RENEW_SHARE = 0.8
RENEW_MAX_S = 24 * 3600.0
JITTER_S = 10.0

_Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at: float


class PodTokens:
    def __init__(self, client: Client, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._tokens: dict[_Key, _Token] = {}

    async def get(self, pod: Object, audience: str, seconds: int) -> str:
        """Raises VolumeError where the API issues none; while it does not answer, the old token goes on."""
        key = (pod["metadata"]["uid"], audience, seconds)
        known = self._tokens.get(key)
        now = self._clock()
        if known is not None and now < known.renew_at:
            return known.text
        try:
            status = await self._ask(pod, audience, seconds)
        except AtollError as error:
            if known is not None:
                return known.text
            raise VolumeError(f"failed to fetch token: {error}") from error
        expires = calendar.timegm(time.strptime(status["expirationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
        life = min((expires - now) * RENEW_SHARE, RENEW_MAX_S)
        self._tokens[key] = _Token(status["token"], now + max(1.0, life - random.random() * JITTER_S))  # noqa: S311  # spreads load, guards nothing
        return str(status["token"])

    async def _ask(self, pod: Object, audience: str, seconds: int) -> Object:
        meta = pod["metadata"]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        account = pod["spec"].get("serviceAccountName") or "default"
        made = await self._client.create(SERVICE_ACCOUNTS, request, meta["namespace"], name=account, subresource="token")
        status: Object = made["status"]
        return status

    def renewal(self, uid: str) -> float | None:
        """Seconds until the first of the pod's tokens is to be renewed."""
        times = [token.renew_at for key, token in self._tokens.items() if key[0] == uid]
        return max(0.0, min(times) - self._clock()) if times else None

    def forget(self, uid: str) -> None:
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] != uid}
