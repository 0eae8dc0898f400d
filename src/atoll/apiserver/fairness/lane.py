"""Lists of many objects one at a time: between two of them the loop looks at its sockets.

The server is one loop, and a list of thousands of objects holds it for tens of milliseconds; a hundred of them that have all arrived would
run one after another before the next byte is read. In the lane each gets a turn of the loop of its own, so that a heartbeat waits for one
of them at most, whoever sent the others.
"""

from __future__ import annotations

import asyncio
from collections import deque

HEAVY = 1_000  # objects from which on a list takes the lane


class Lane:
    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._moving = False

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if not self._moving:
            self._moving = True
            loop.call_soon(self._next, loop)
        await mine

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                loop.call_soon(self._next, loop)  # after the one that was woken, and what its turn brings
                return
        self._moving = False
