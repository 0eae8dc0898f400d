"""Limits by cgroup: what they hold back, and how a death by one of them is told from others."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from atoll.errors import Conflict, InvalidInput
from atoll.runtime import Attach
from atoll.runtime.resources import from_host_config

MIB = 1024 * 1024


def test_out_of_memory_is_told_from_a_kill(box):
    async def body(box):
        resources = from_host_config({"Memory": 16 * MIB, "MemorySwap": 16 * MIB})
        hog = ["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"]
        status, _ = await box.run(hog, resources=resources)
        assert (status.code, status.signal, status.oom_killed) == (137, 9, True)
        status, _ = await box.run(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1; exit 5"], resources=resources)
        assert (status.code, status.oom_killed) == (5, True)  # a child was killed, the container went on
        status, output = await box.run(["sh", "-c", "ulimit -v 20000; exec dd if=/dev/zero of=/dev/null bs=64M count=1"])
        assert (status.code, status.oom_killed) == (1, False)
        assert "out of memory" in output

    box(body)


def test_a_limit_too_low_for_the_start_says_so(box):
    async def body(box):
        with pytest.raises(Exception, match="memory"):
            await box.run(["true"], resources={"memory": {"limit": 64 * 1024, "swap": 64 * 1024}})
        assert await box.runtime.list() == []

    box(body)


def test_cpu_share(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "while :; do :; done"], resources=from_host_config({"NanoCpus": 500_000_000}))
        await box.start(name)
        before, begin = (await box.runtime.stats(name))["cpu"]["usage_ns"], time.monotonic()
        await asyncio.sleep(1.2)
        stats = await box.runtime.stats(name)
        share = (stats["cpu"]["usage_ns"] - before) / (time.monotonic() - begin) / 1e9
        assert share < 0.65
        assert stats["cpu"]["throttled_periods"] > 0 or share < 0.48  # a busy machine gives it less than it may have

    box(body)


def test_pids(box):
    async def body(box):
        script = "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done; echo all"
        name = box.bundle(["sh", "-c", script], resources=from_host_config({"PidsLimit": 10}))
        await box.start(name)
        status = await asyncio.wait_for(box.runtime.wait(name), 20)
        assert status.code != 0
        assert "can't fork: Resource temporarily unavailable" in box.output(name)

    box(body)


def test_block_devices(box):
    names = [name for name in os.listdir("/sys/block") if os.path.exists(f"/dev/{name}")]
    if not names or not os.path.exists("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device"):
        pytest.skip("needs a block device and cgroup v1")
    host = {"BlkioDeviceReadBps": [{"Path": f"/dev/{names[0]}", "Rate": 1 << 20}]}

    async def body(box):
        shown = await box.sh("cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device", resources=from_host_config(host))
        number = os.stat(f"/dev/{names[0]}").st_rdev
        assert shown == f"{os.major(number)}:{os.minor(number)} {1 << 20}\n"

    box(body)


def test_stats_and_update(box):
    async def body(box):
        name = box.bundle(["sleep", "100"], resources=from_host_config({"Memory": 64 * MIB, "PidsLimit": 20}))
        pid = await box.start(name)
        stats = await box.runtime.stats(name)
        assert stats["memory"]["limit"] == 64 * MIB
        assert 0 < stats["memory"]["usage"] < 16 * MIB
        assert stats["pids"] == {"current": 1, "limit": 20}
        assert await box.runtime.pids(name) == [pid]
        await box.runtime.update(name, from_host_config({"Memory": 128 * MIB}))
        assert (await box.runtime.stats(name))["memory"]["limit"] == 128 * MIB
        await box.runtime.update(name, from_host_config({"Memory": 32 * MIB}))
        assert (await box.runtime.stats(name))["memory"]["limit"] == 32 * MIB

    box(body)


def test_pause_and_resume(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"])
        await box.start(name)
        await asyncio.sleep(0.1)
        await box.runtime.pause(name)
        await asyncio.sleep(0.05)  # what was in the pipe
        before = box.output(name)
        await asyncio.sleep(0.15)
        assert box.output(name) == before
        assert (await box.runtime.list())[0].status == "paused"
        with pytest.raises(Conflict, match="paused"):
            await box.exec(name, ["true"])
        await box.runtime.resume(name)
        await asyncio.sleep(0.1)
        assert box.output(name) != before
        await box.runtime.pause(name)
        await box.runtime.signal(name, 9)  # the frozen can be killed
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 137

    box(body)


def test_signals(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.02; done"])
        with Attach() as attach:
            await box.start(name, attach=attach)
            assert await attach.stdout.read() == b"up\n"
        await box.runtime.signal(name, 15)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 4
        with pytest.raises(Conflict):
            await box.runtime.signal(name, 15)

    box(body)


def test_a_stopped_process_can_be_killed(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        await box.runtime.signal(name, 19)
        await box.runtime.signal(name, 9, all=True)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 137

    box(body)


def test_a_flood_of_orphans_is_reaped(box):
    async def body(box):
        script = "i=0; while [ $i -lt 300 ]; do (true & true) ; i=$((i+1)); done; (sleep 100 &); echo done"
        status, output = await box.run(["sh", "-c", script])
        assert (status.code, output) == (0, "done\n")
        # In the host's pid namespace orphans are ours to end.
        status, _ = await box.run(["sh", "-c", "(sleep 1000 &); exit 6"], namespaces={"mount": None})
        assert status.code == 6

    box(body)


@pytest.mark.parametrize(
    ("host_config", "resources"),
    [
        ({}, {}),
        ({"Memory": 64 * MIB}, {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        ({"Memory": 64 * MIB, "MemorySwap": -1}, {"memory": {"limit": 64 * MIB, "swap": -1}}),
        ({"NanoCpus": 1_500_000_000, "CpuShares": 512}, {"cpu": {"period": 100_000, "quota": 150_000, "shares": 512}}),
        ({"PidsLimit": -1}, {"pids": {"limit": -1}}),
        ({"CpusetCpus": "0-1", "PidsLimit": 0, "MemorySwappiness": -1}, {"cpu": {"cpus": "0-1"}}),
    ],
)
def test_from_host_config(host_config, resources):
    assert from_host_config(host_config) == resources


@pytest.mark.parametrize(
    ("host_config", "message"),
    [
        ({"Memory": 4096}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 64 * MIB, "MemorySwap": 32 * MIB}, "Minimum memoryswap limit"),
        ({"MemorySwap": 32 * MIB}, "always set the Memory limit"),
        ({"BlkioWeight": 5}, "Range of blkio weight"),
        ({"BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 5}]}, "Range of blkio weight"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 5}]}, "/dev/null is not a block device"),
        ({"BlkioDeviceWriteIOps": [{"Path": "/no/such", "Rate": 5}]}, "stat /no/such: No such file"),
        ({"BlkioDeviceReadIOps": [{"Path": "/no/such", "Rate": "5"}]}, "needs a Path and a Rate"),
        ({"NanoCpus": 1, "CpuQuota": 1}, "Conflicting options"),
    ],
)
def test_from_host_config_refuses(host_config, message):
    with pytest.raises(InvalidInput, match=message):
        from_host_config(host_config)
