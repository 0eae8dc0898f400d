"""Events end by themselves: those older than the limit (an hour, as upstream) are deleted, oldest first, a few at a time."""

from __future__ import annotations

import asyncio
import calendar
import logging
import time

from atoll.apiserver.api import Api
from atoll.apiserver.bootstrap import SYSTEM
from atoll.apiserver.call import Call
from atoll.apiserver.verbs.delete import DeleteOptions
from atoll.errors import AtollError

log = logging.getLogger(__name__)

SWEEP_S = 60.0
SWEEP_MAX = 500  # deletes a sweep: what a burst of events leaves behind is spread over minutes


async def expire_events(api: Api, ttl: int) -> None:
    """Runs until cancelled."""
    kind = api.core.registry.get("", "v1", "events")
    if kind is None:
        return
    while True:
        await asyncio.sleep(SWEEP_S)
        oldest = api.core.clock() - ttl
        stale = [item for item in api.core.cacher(kind).items() if _last_seen(item.obj) < oldest][:SWEEP_MAX]
        for item in stale:
            metadata = item.obj["metadata"]
            try:
                await api.delete(Call(SYSTEM, "delete", kind, metadata["namespace"], metadata["name"]), DeleteOptions())
            except AtollError as error:
                log.warning("event %s could not be expired: %s", item.key, error)


def _last_seen(event: dict[str, object]) -> float:
    metadata = event["metadata"]
    assert isinstance(metadata, dict)
    series = event.get("series")
    last = series.get("lastObservedTime") if isinstance(series, dict) else None
    stamp = str(last or event.get("lastTimestamp") or event.get("eventTime") or metadata["creationTimestamp"])
    return calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
