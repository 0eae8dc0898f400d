"""Events: what `kubectl describe` shows under an object, written as core/v1 Event.

`event` only queues, so that no controller waits for its own commentary; `run` writes. The same event again within the cache's memory
patches count and lastTimestamp of the first instead of making another object, as client-go's correlator does. When the queue is full
events are dropped: they are advice, not state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple

from atoll.client.objects import Object, object_reference
from atoll.client.protocol import Client, is_not_found
from atoll.client.resources import EVENTS, Resource
from atoll.errors import AtollError, StatusError
from atoll.units import timestamp_seconds

EventType = Literal["Normal", "Warning"]

QUEUE_MAX = 1000  # client-go's broadcaster queue
REMEMBERED_MAX = 4096  # client-go's correlator cache
MESSAGE_MAX = 1024  # bytes the API allows in an event's message

logger = logging.getLogger(__name__)


class _Pending(NamedTuple):
    reference: Object
    kind: EventType
    reason: str
    message: str
    when: float


class Recorder:
    """Events of one component ("deployment-controller", "default-scheduler", "kubelet"), from one host."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._last_ns = 0
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(QUEUE_MAX)
        self._seen: OrderedDict[tuple[str, ...], tuple[str, str, int]] = OrderedDict()  # → namespace, name, count

    def event(self, obj: Object, resource: Resource, kind: EventType, reason: str, message: str, *, field_path: str | None = None) -> None:
        """Queues an event about `obj`; `field_path` points into it: `spec.containers{web}`."""
        reference = object_reference(obj, resource)
        if field_path:
            reference["fieldPath"] = field_path
        try:
            self._queue.put_nowait(_Pending(reference, kind, reason, message[:MESSAGE_MAX], self._clock()))
        except asyncio.QueueFull:
            logger.warning("event dropped, queue is full: %s %s: %s", reference["name"], reason, message)

    async def run(self) -> None:
        """Writes queued events until cancelled."""
        while True:
            await self._write_one(await self._queue.get())

    async def flush(self) -> None:
        """Writes what is queued now; for tests and for an orderly end."""
        while not self._queue.empty():
            await self._write_one(self._queue.get_nowait())

    async def _write_one(self, pending: _Pending) -> None:
        try:
            await self._write(pending)
        except (AtollError, OSError) as error:
            # A namespace that is going away refuses new events, and that is in order.
            level = logging.DEBUG if isinstance(error, StatusError) and error.code in (403, 404) else logging.WARNING
            logger.log(level, "event about %s not written: %s", pending.reference.get("name"), error)
        except Exception:
            logger.exception("event about %s not written", pending.reference.get("name"))

    async def _write(self, pending: _Pending) -> None:
        reference = pending.reference
        key = (reference["uid"], reference.get("fieldPath", ""), pending.kind, pending.reason, pending.message)
        known = self._seen.get(key)
        if known is not None:
            namespace, name, count = known
            patch = {"count": count + 1, "lastTimestamp": timestamp_seconds(pending.when)}
            try:
                await self._client.patch(EVENTS, name, patch, namespace)
            except AtollError as error:
                if not is_not_found(error):
                    raise
                del self._seen[key]
            else:
                self._remember(key, namespace, name, count + 1)
                return
        namespace = reference.get("namespace") or "default"
        created = await self._client.create(EVENTS, self._make(pending, namespace), namespace)
        self._remember(key, namespace, created["metadata"]["name"], 1)

    def _make(self, pending: _Pending, namespace: str) -> Object:
        now = timestamp_seconds(pending.when)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pending.reference['name']}.{self._next_suffix(pending.when)}", "namespace": namespace},
            "involvedObject": pending.reference,
            "reason": pending.reason,
            "message": pending.message,
            "type": pending.kind,
            "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }

    def _next_suffix(self, when: float) -> str:
        """The time in hexadecimal nanoseconds, as client-go names events, and never the same twice."""
        self._last_ns = max(self._last_ns + 1, int(when * 1e9))
        return f"{self._last_ns:x}"

    def _remember(self, key: tuple[str, ...], namespace: str, name: str, count: int) -> None:
        self._seen[key] = (namespace, name, count)
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)
