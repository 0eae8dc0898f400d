"""One active among many: a Lease held by optimistic writes.

The holder renews every `retry` seconds; others take the lease when it was not renewed for `duration` seconds as they themselves
observed it, so that clocks of different machines need not agree (client-go's rule). A holder that cannot renew within `deadline` stops
its work before anyone else may start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from atoll.client.objects import Object, copy_of
from atoll.client.protocol import Client, is_already_exists, is_conflict, is_not_found
from atoll.client.resources import LEASES
from atoll.errors import AtollError, Unavailable
from atoll.units import timestamp_micro

LEASE_DURATION_S = 15.0  # kube-controller-manager's defaults
RENEW_DEADLINE_S = 10.0
RETRY_PERIOD_S = 2.0

logger = logging.getLogger(__name__)


class LeaderElector:
    """Candidate `identity` for the Lease `name`."""

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        namespace: str = "kube-system",
        duration: float = LEASE_DURATION_S,
        deadline: float = RENEW_DEADLINE_S,
        retry: float = RETRY_PERIOD_S,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._namespace = namespace
        self._duration = duration
        self._deadline = deadline
        self._retry = retry
        self._clock_ns = clock_ns
        self._observed: tuple[str, float] = ("", 0.0)  # resourceVersion of the lease, and when we first saw it

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Waits for the lease, then runs `lead` while it is held. Returns when `lead` returns; raises Unavailable when the lease is
        lost.
        """
        while not await self._try():  # noqa: ASYNC110 (the lease is on the server: no event here tells that it expired)
            await asyncio.sleep(self._retry)
        logger.info("%s leads %s", self._identity, self._name)
        leading = asyncio.ensure_future(lead())
        renewing = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((leading, renewing), return_when=asyncio.FIRST_COMPLETED)
            if not leading.done():
                raise Unavailable(f"lease {self._namespace}/{self._name} was lost by {self._identity}")
            leading.result()
        finally:
            for task in (leading, renewing):
                task.cancel()
            await asyncio.gather(leading, renewing, return_exceptions=True)
            await self._release()

    async def _renew(self) -> None:
        """Returns when the lease could not be renewed in time."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while loop.time() - renewed < self._deadline:
            await asyncio.sleep(self._retry)
            if await self._try():
                renewed = loop.time()

    async def _try(self) -> bool:
        try:
            async with asyncio.timeout(self._deadline):
                return await self._acquire()
        except (AtollError, OSError) as error:
            if not (is_conflict(error) or is_already_exists(error)):
                logger.warning("lease %s: %s", self._name, error)
            return False

    async def _acquire(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except AtollError as error:
            if not is_not_found(error):
                raise
            await self._client.create(LEASES, self._lease(None), self._namespace)
            return True
        now = asyncio.get_running_loop().time()
        version = lease["metadata"]["resourceVersion"]
        if version != self._observed[0]:
            self._observed = (version, now)
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if holder and holder != self._identity and now - self._observed[1] < self._duration:
            return False
        await self._client.update(LEASES, self._lease(lease))
        return True

    async def _release(self) -> None:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                free = copy_of(lease)
                free["spec"]["holderIdentity"] = ""
                await self._client.update(LEASES, free)
        except (AtollError, OSError) as error:
            logger.info("lease %s was not released (%s): it will expire", self._name, error)

    def _lease(self, old: Object | None) -> Object:
        now = timestamp_micro(self._clock_ns())
        lease = copy_of(old) if old else self._new_lease()
        spec = lease.setdefault("spec", {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        spec.update(holderIdentity=self._identity, renewTime=now, leaseDurationSeconds=int(self._duration))
        return lease

    def _new_lease(self) -> Object:
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": self._name, "namespace": self._namespace}}
