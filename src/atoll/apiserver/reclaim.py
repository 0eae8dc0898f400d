"""Rows of addresses and ports brought into line with the services that are stored: what a killed server left behind is free again.

A server is killed between the claim and the service's write, or between a service's end and the release. Rows are left alone while they are
young, for another server may be about to write their service; where nobody else can be, they need not be.
"""

from __future__ import annotations

import asyncio
import logging

from atoll.apiserver.claims import Claims, held_by
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.cacher import Cacher
from atoll.errors import AtollError

log = logging.getLogger(__name__)

INTERVAL_S = 180.0  # upstream's repair interval
GRACE_S = 60.0  # upstream's; a request has ended by then


async def reclaim(core: Core, claims: Claims, grace: float) -> None:
    """Raises Unavailable."""
    await core.store.settle()
    services = _services(core)
    rows = await claims.all()
    taken = {row.what: row for row in rows}
    oldest = core.clock() - grace
    for row in rows:
        item = services.get("/".join(row.owner))
        if (item is None or row.what not in held_by(item.obj)) and row.made <= oldest:
            log.warning("%s was held for service %s, which does not have it: it is free again", row.what, "/".join(row.owner))
            await claims.release([row])
            taken.pop(row.what)
    for item in list(services.items()):
        for what in held_by(item.obj):
            present = taken.get(what) or await claims.make(what, item.obj)
            if present is None:
                continue  # made by another server since
            taken[what] = present
            if "/".join(present.owner) != item.key:
                log.error("service %s has %s, which is held for service %s: delete one of them", item.key, what, "/".join(present.owner))


async def keep_reclaiming(core: Core, claims: Claims) -> None:
    """Runs until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            await reclaim(core, claims, GRACE_S)
        except AtollError as error:
            log.warning("addresses and ports of services: %s", error)


def _services(core: Core) -> Cacher:
    kind = core.registry.get("", "v1", "services")
    assert kind is not None
    return core.cacher(kind)
