"""Memory is given back in a pause, not in the midst of work, and not all the time."""

from __future__ import annotations

import asyncio

from atoll.node.leisure import Leisure

PAUSE_S = 0.05


def test_the_work_is_done_once_after_the_last_request():
    async def body():
        times = []
        loop = asyncio.get_running_loop()
        leisure = Leisure(lambda: times.append(loop.time()), PAUSE_S, 0)
        for _ in range(4):
            leisure.note()
            await asyncio.sleep(PAUSE_S / 2)
        last = loop.time() - PAUSE_S / 2
        await until(lambda: times)
        assert times[0] >= last + PAUSE_S * 0.9
        await asyncio.sleep(PAUSE_S * 2)
        assert len(times) == 1, "nothing more happened"
        leisure.note()
        await until(lambda: len(times) == 2)
        leisure.close()
        leisure.note()
        assert leisure._timer is None

    asyncio.run(body())


def test_a_client_that_polls_does_not_make_work_all_the_time():
    async def body():
        times = []
        loop = asyncio.get_running_loop()
        leisure = Leisure(lambda: times.append(loop.time()), 0.01, 0.2)
        while len(times) < 2:
            leisure.note()
            await asyncio.sleep(0.02)
        leisure.close()
        assert times[1] - times[0] >= 0.19

    asyncio.run(asyncio.wait_for(body(), 10))


def test_a_failure_is_logged(caplog):
    async def body():
        def fail():
            raise OSError("no /proc")

        leisure = Leisure(fail, 0, 0)
        leisure.note()
        await until(lambda: caplog.records)
        leisure.close()

    asyncio.run(body())
    assert "no /proc" in caplog.text


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
