import asyncio

import virtual_time
from atoll.client.workqueue import WorkQueue


def test_a_key_is_queued_once_and_worked_on_once():
    async def scenario():
        queue = WorkQueue()
        queue.add("a")
        queue.add("a")
        assert await queue.get() == "a"
        assert len(queue) == 0
        queue.add("a")
        assert len(queue) == 0  # still in work
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert queue.is_idle

    virtual_time.run(scenario())


def test_of_two_delays_the_earlier_stands():
    async def scenario():
        queue, loop = WorkQueue(), asyncio.get_running_loop()
        start = loop.time()
        queue.add_after("a", 60)
        queue.add_after("a", 5)
        queue.add_after("a", 30)
        await queue.get()
        assert round(loop.time() - start) == 5
        queue.done("a")
        await asyncio.sleep(100)
        assert len(queue) == 0

    virtual_time.run(scenario())


def test_failures_double_the_delay_until_forgotten():
    async def scenario():
        queue, loop = WorkQueue(base_delay=1, max_delay=10), asyncio.get_running_loop()
        waits = []
        for _ in range(6):
            start = loop.time()
            queue.add_rate_limited("a")
            await queue.get()
            queue.done("a")
            waits.append(round(loop.time() - start))
        assert waits == [1, 2, 4, 8, 10, 10]
        assert queue.failures("a") == 6
        queue.forget("a")
        start = loop.time()
        queue.add_rate_limited("a")
        await queue.get()
        assert round(loop.time() - start) == 1

    virtual_time.run(scenario())


def test_a_cancelled_waiter_passes_its_wake_up_on():
    async def scenario():
        queue = WorkQueue()
        first, second = asyncio.ensure_future(queue.get()), asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        first.cancel()
        assert await asyncio.wait_for(second, 1) == "a"
        assert first.cancelled()

    virtual_time.run(scenario())


def test_close_drops_delayed_keys():
    async def scenario():
        queue = WorkQueue()
        queue.add_after("a", 1)
        queue.close()
        await asyncio.sleep(5)
        assert len(queue) == 0

    virtual_time.run(scenario())
