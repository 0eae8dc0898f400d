"""What the server's and the client's protocols share: one transport, its flow control and its end.

`drain` waits while the transport's buffer is above its high-water mark; `lost` and `closed` tell the end. Subclasses parse.
"""

from __future__ import annotations

import asyncio
from typing import cast

from atoll.http.errors import Disconnected


class Connection(asyncio.Protocol):
    """A transport with back-pressure. Usable from connection_made on."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.lost = False  # connection_lost was called
        self.tls = False
        self.write_paused = False
        self._drainers: list[asyncio.Future[None]] = []
        self._closers: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.tls = transport.get_extra_info("sslcontext") is not None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_exception(Disconnected("the peer closed the connection"))
        for waiter in self._closers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()
        self._closers.clear()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()

    def send(self, data: bytes) -> None:
        """Queue bytes; Disconnected when the peer has gone."""
        if self.lost:
            raise Disconnected("the peer closed the connection")
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the peer has read enough that more may be written; Disconnected when it has gone."""
        if self.lost:
            raise Disconnected("the peer closed the connection")
        if self.write_paused:
            waiter = asyncio.get_running_loop().create_future()
            self._drainers.append(waiter)
            await waiter

    def close(self) -> None:
        """Flush what was written and close both directions."""
        self.close_transport()

    def close_transport(self) -> None:
        if not self.transport.is_closing():  # a second close of Python 3.11's TLS transport would put it beyond abort
            self.transport.close()

    async def wait_lost(self) -> None:
        if not self.lost:
            waiter = asyncio.get_running_loop().create_future()
            self._closers.append(waiter)
            await waiter

    @property
    def can_write_eof(self) -> bool:
        return not self.tls and not self.lost and self.transport.can_write_eof()
