import asyncio

import pytest

from atoll.engine import events as module
from atoll.engine.events import Events, matches
from atoll.engine.filters import Filters


async def collect(stream):
    return [event["Action"] async for event in stream]


def test_replay_then_live_until():
    async def run():
        now = [1000]
        events = Events(clock=lambda: now[0])
        events.publish("container", "create", "c1", {"image": "i", "name": "n"})
        now[0] = 2000
        events.publish("container", "start", "c1", {"image": "i", "name": "n"})
        return [await collect(events.subscribe(None, since, 2000)) for since in (0, 1500, None)]

    assert asyncio.run(run()) == [["create", "start"], ["start"], []]


def test_a_slow_subscriber_is_cut_off(monkeypatch):
    monkeypatch.setattr(module, "QUEUE_MAX", 3)

    async def run():
        events = Events()
        stream = events.subscribe()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for number in range(10):
            events.publish("container", f"a{number}", "c")
        seen = [(await first)["Action"], *await collect(stream)]
        return seen, events.listeners

    assert asyncio.run(run()) == (["a0", "a1", "a2"], 0)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"container": ["web"]}, True),
        ({"container": ["abc"]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["reef/app"]}, True),
        ({"event": ["exec_create"]}, True),
        ({"event": ["start"]}, False),
        ({"type": ["image"]}, False),
        ({"label": ["tier=1"]}, True),
        ({"type": ["container"], "label": ["tier=2"]}, False),
        ({"network": ["bridge"]}, False),
    ],
)
def test_filters(filters, wanted):
    events = Events()
    event = events.publish("container", "exec_create: sh -c x", "abcdef", {"image": "reef/app:1", "name": "web", "tier": "1"})
    assert matches(event, Filters(filters)) is wanted
