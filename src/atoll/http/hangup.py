"""Whether a peer that has ended its direction is still there to be answered.

A client of a unix socket that is killed and one that half-closes look the same to who reads: end of file. The kernel knows better: once the
peer has closed altogether there is a hang-up (EPOLLHUP), which asyncio cannot be asked for. An epoll that asks for nothing else is readable
then, and costs nothing until then.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangUp:
    """Calls `told` once the peer of the socket `fd` has gone; `close` it before the socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, told: Callable[[], None]) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._told = told
        self._epoll.register(fd, 0)
        loop.add_reader(self._epoll.fileno(), self._ready)

    def close(self) -> None:
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _ready(self) -> None:
        self.close()
        self._told()
