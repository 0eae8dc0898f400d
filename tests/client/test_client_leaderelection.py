import asyncio
from contextlib import suppress

import pytest

import virtual_time
from atoll.client.leaderelection import LeaderElector
from atoll.client.resources import LEASES
from atoll.errors import Unavailable
from fake_cluster import FakeClient


def elector(client, identity):
    return LeaderElector(client, "scheduler", identity, clock_ns=lambda: int(virtual_time.clock() * 1e9))


def test_one_leads_and_the_other_follows_after_a_crash():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        leading = []

        def lead(name):
            async def body():
                leading.append((name, asyncio.get_running_loop().time()))
                await asyncio.Event().wait()

            return body

        first = asyncio.create_task(elector(client, "a").run(lead("a")))
        await asyncio.sleep(1)
        second = asyncio.create_task(elector(client, "b").run(lead("b")))
        await asyncio.sleep(60)
        assert [name for name, _ in leading] == ["a"]
        client.fail("update leases scheduler", Unavailable("gone"), times=1000)
        client.fail("get *", Unavailable("gone"))
        with pytest.raises(Unavailable, match="lost by a"):
            await first
        client.failures.clear()
        await asyncio.sleep(30)
        assert [name for name, _ in leading] == ["a", "b"]
        lease = client.find(LEASES, "scheduler", "kube-system")
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        assert client.find(LEASES, "scheduler", "kube-system")["spec"]["holderIdentity"] == ""
        client.check_unchanged()

    virtual_time.run(scenario())


def test_returns_what_the_work_returns_and_frees_the_lease():
    async def scenario():
        client = FakeClient(virtual_time.clock)

        async def work():
            await asyncio.sleep(5)

        await elector(client, "a").run(work)
        start = asyncio.get_running_loop().time()
        await elector(client, "b").run(work)
        assert asyncio.get_running_loop().time() - start == pytest.approx(5, abs=0.1)

    virtual_time.run(scenario())
