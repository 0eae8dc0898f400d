"""One priority level: so many seats, and queues for those who find none free.

Queues are dealt by shuffle sharding: each flow has a hand of a few, and a request goes to the emptiest of its hand, so a flow that floods
fills its own and leaves every other flow some queue of its own. From the queues requests are taken by start-time fair queuing: the queue
that has had the least of the server's time next. A level may take seats that others do not use, as far as these lend and it may borrow.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from atoll.apiserver.machinery import statuses

WAIT_S = 15.0  # upstream: a quarter of the request timeout
ESTIMATE_S = 0.01  # how long a request is taken to last until it is known; upstream's is a minute, for a server with a core a seat
RETRY_S = 1


class _Waiting(NamedTuple):
    seats: int
    turn: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Queue:
    index: int
    waiting: deque[_Waiting] = field(default_factory=deque)
    seats: int = 0  # of those that wait
    executing: int = 0
    virtual: float = 0.0  # seat-seconds it has had


class Ticket(NamedTuple):
    """A seat taken; give it back."""

    seats: int
    queue: _Queue | None
    since: float


@dataclass(slots=True)
class Pool:
    """All levels of a server. `queued` is how many requests wait in any of them."""

    levels: list[Level] = field(default_factory=list)
    queued: int = 0


class Level:
    """`shares` of the server's seats. `take` when there is room, `wait` when there is not, and `give` afterwards."""

    def __init__(self, name: str, spec: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self.name = name
        self.uid = ""
        self.is_exempt = spec.get("type") == "Exempt"
        limited = spec.get("exempt" if self.is_exempt else "limited") or {}
        self.shares = int(limited.get("nominalConcurrencyShares", 0 if self.is_exempt else 30) or 0)
        self._lendable_percent = int(limited.get("lendablePercent") or 0)
        self._borrowing_percent = limited.get("borrowingLimitPercent")
        response = limited.get("limitResponse") or {}
        queuing = response.get("queuing") or {}
        self._queues = [_Queue(index) for index in range(int(queuing.get("queues") or 64))] if response.get("type") == "Queue" else []
        self._hand = min(int(queuing.get("handSize") or 8), len(self._queues))
        self._length = int(queuing.get("queueLengthLimit") or 50)
        self._clock = clock
        self._pool = Pool([self])
        self._virtual = 0.0
        self.nominal = 0
        self.executing = 0  # seats
        self.queued = 0  # requests
        self.rejected = 0

    def share(self, seats: int, total_shares: int, pool: Pool) -> None:
        """Its part of the server's seats, rounded up as upstream does."""
        self.nominal = -(-seats * self.shares // total_shares) if total_shares else 0
        self._pool.queued -= self.queued
        pool.queued += self.queued
        self._pool = pool

    @property
    def lendable(self) -> int:
        """Seats that others may have now."""
        return min(self.nominal * self._lendable_percent // 100, max(0, self.nominal - self.executing))

    def take(self, seats: int) -> Ticket | None:
        """A seat at once, None where others wait or there is none. A request wider than the level gets what there is."""
        if self.queued or not self._has_room(seats):
            return None
        self.executing += seats
        return Ticket(seats, None, 0.0)

    def _has_room(self, seats: int) -> bool:
        after = self.executing + seats
        if after <= self.nominal or not self.executing:
            return True
        over = after - self.nominal
        if self._borrowing_percent is not None and over > self.nominal * self._borrowing_percent // 100:
            return False
        others = [level for level in self._pool.levels if level is not self]
        lent = sum(max(0, level.executing - level.nominal) for level in others)
        return over + lent <= sum(level.lendable for level in others)

    async def wait(self, flow: bytes, seats: int) -> Ticket:
        """A seat in its turn. Raises StatusError 429 when the queue is full, or the turn does not come in time."""
        queue = self._deal(flow)
        if queue is None or len(queue.waiting) >= self._length:
            raise self._rejection()
        if not queue.waiting and not queue.executing:
            queue.virtual = max(queue.virtual, self._virtual)
        waiting = _Waiting(seats, asyncio.get_running_loop().create_future())
        queue.waiting.append(waiting)
        queue.seats += seats
        self.queued += 1
        self._pool.queued += 1
        self.dispatch()
        try:
            async with asyncio.timeout(WAIT_S):
                await waiting.turn
        except BaseException as error:
            if waiting.turn.done() and not waiting.turn.cancelled():
                self.give(Ticket(seats, queue, self._clock()))
            else:
                self._forget(queue, waiting)
            if isinstance(error, TimeoutError):
                raise self._rejection() from None
            raise
        return Ticket(seats, queue, self._clock())

    def give(self, ticket: Ticket) -> None:
        self.executing -= ticket.seats
        queue = ticket.queue
        if queue is not None:
            queue.executing -= ticket.seats
            queue.virtual += ticket.seats * (self._clock() - ticket.since - ESTIMATE_S)
        if self._pool.queued:
            self.dispatch()
            for level in self._pool.levels:
                if level is not self and level.queued:
                    level.dispatch()  # what has come free may be lent

    def dispatch(self) -> None:
        """Seat those whose turn it is."""
        while self.queued:
            queue = min((each for each in self._queues if each.waiting), key=_virtual)
            head = queue.waiting[0]
            if not self._has_room(head.seats):
                return
            self._forget(queue, head)
            self.executing += head.seats
            queue.executing += head.seats
            self._virtual = queue.virtual
            queue.virtual += head.seats * ESTIMATE_S
            if not head.turn.done():
                head.turn.set_result(None)

    def _forget(self, queue: _Queue, waiting: _Waiting) -> None:
        if waiting in queue.waiting:
            queue.waiting.remove(waiting)
            queue.seats -= waiting.seats
            self.queued -= 1
            self._pool.queued -= 1

    def _deal(self, flow: bytes) -> _Queue | None:
        """The emptiest queue of the flow's hand."""
        if not self._queues:
            return None
        entropy = int.from_bytes(hashlib.blake2b(flow, digest_size=16).digest())
        deck = list(range(len(self._queues)))
        hand = []
        for _ in range(self._hand):
            entropy, card = divmod(entropy, len(deck))
            hand.append(self._queues[deck.pop(card)])
        return min(hand, key=lambda queue: queue.seats + queue.executing)

    def _rejection(self) -> Exception:
        self.rejected += 1
        return statuses.too_many_requests("Too many requests, please try again later.", RETRY_S)


def _virtual(queue: _Queue) -> float:
    return queue.virtual
