"""Work that is done again whenever an object of certain kinds has changed: the server's own small controllers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from atoll.apiserver.machinery.cacher import Cacher
from atoll.errors import AtollError

log = logging.getLogger(__name__)

RECHECK_S = 300.0


async def follow(cachers: Sequence[Cacher], look: Callable[[], Awaitable[None]]) -> None:
    """`look` now and after each change; what it raises is logged. Runs until cancelled."""
    seen: list[int] = []
    while True:
        changes = [cacher.last_change for cacher in cachers]
        if changes != seen:
            seen = changes
            try:
                await look()
            except AtollError as error:
                log.warning("%s: %s", cachers[0].kind.resource, error)
            continue
        waiting = [asyncio.ensure_future(cacher.changed(RECHECK_S)) for cacher in cachers]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
