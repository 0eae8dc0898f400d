"""A start that is expected is the start of a child that waits for it already; whatever becomes of that child, the start succeeds."""

import asyncio
import json
import os
import signal

import pytest

from atoll.errors import AtollError
from atoll.kernel import mounts
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime.spares import SPARES_MAX
from keeper_harness import keeper_of, kill_keeper, until

KINDS = ("mount", "pid", "ipc", "uts", "network")  # what default_spec makes at birth


def children(box):
    keeper = keeper_of(box)
    with open(f"/proc/{keeper}/task/{keeper}/children", encoding="ascii") as listed:
        return [int(word) for word in listed.read().split()]


def groups(box, name):
    group = Cgroup(Layout.discover(), f"/atoll-{box.instance.id}/{name}")
    return [directory for _, directory in group.directories() if os.path.isdir(directory)]


async def spare_of(box, name, kinds=KINDS):
    await box.runtime.connect()
    box.runtime.expect(name, kinds)
    await until(lambda: children(box))
    return children(box)[0]


async def end_of(box, name):
    status = await asyncio.wait_for(box.runtime.wait(name), 20)
    await box.runtime.delete(name)
    return status.code


def test_the_spare_becomes_the_container(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "cat; hostname; echo $$; exit 3"], hostname="early")
        spare = await spare_of(box, name)
        box.runtime.expect(name, KINDS)  # said twice, it is one
        assert await box.start(name) == spare
        assert await end_of(box, name) == 3
        assert box.output(name) == "early\n1\n"
        assert groups(box, name) == []

    box(body)


def test_what_is_mounted_meanwhile_is_seen(box):
    async def body(box):
        volume = box.instance.home / "volume"
        volume.mkdir()
        bind = {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind"]}
        name = box.bundle(["cat", "/volume/here"], mounts=[bind])
        spare = await spare_of(box, name)
        mounts.mount("tmpfs", str(volume), "tmpfs", 0)
        try:
            (volume / "here").write_text("late\n")
            assert await box.start(name) == spare
            assert await end_of(box, name) == 0
        finally:
            mounts.unmount(str(volume))
        assert box.output(name) == "late\n"

    box(body)


def test_a_spare_with_a_terminal(box):
    async def body(box):
        name = box.bundle(["tty"], terminal=True)
        spare = await spare_of(box, name)
        assert await box.start(name) == spare
        assert await end_of(box, name) == 0
        assert "/dev/" in box.output(name)

    box(body)


def test_one_that_nobody_asks_for_goes(box):
    async def body(box):
        await spare_of(box, "never")
        await until(lambda: not children(box) and not groups(box, "never"))

    box(body)


@pytest.mark.parametrize("why", ["namespaces", "group", "killed"])
def test_a_spare_that_is_of_no_use_is_not_used(box, why):
    def elsewhere(config):
        if why == "group":
            config["linux"]["cgroupsPath"] = "of/its-own"

    async def body(box):
        name = box.bundle(["sh", "-c", "exit 4"], edit=elsewhere)
        spare = await spare_of(box, name, KINDS[:2] if why == "namespaces" else KINDS)
        if why == "killed":
            os.kill(spare, signal.SIGKILL)
            await until(lambda: not children(box))
        assert await box.start(name) != spare
        assert await end_of(box, name) == 4
        await until(lambda: not children(box) and not groups(box, name))

    box(body)


def test_a_start_that_fails_takes_its_spare_with_it(box):
    async def body(box):
        name = box.bundle(["true"])
        for broken in ({"process": None}, {"linux": {"namespaces": []}}):
            await spare_of(box, name)
            path = box.directory(name) / "config.json"
            whole = path.read_text()
            path.write_text(json.dumps({**json.loads(whole), **broken}))
            with pytest.raises(AtollError, match=r"process|namespace"):
                await box.start(name)
            path.write_text(whole)
            await until(lambda: not children(box) and not groups(box, name))
        await box.start(name)
        assert await end_of(box, name) == 0

    box(body)


def test_spares_end_with_their_keeper(box):
    async def body(box):
        spare = os.pidfd_open(await spare_of(box, "orphan"))
        try:
            kill_keeper(box)
            await box.runtime.list()  # by the next one
            await until(lambda: not groups(box, "orphan"))
            with pytest.raises(ProcessLookupError):
                signal.pidfd_send_signal(spare, 0)
        finally:
            os.close(spare)

    box(body)


def test_there_are_only_so_many(box):
    async def body(box):
        await box.runtime.connect()
        for number in range(2 * SPARES_MAX):
            box.runtime.expect(f"flood{number}", KINDS)
        await box.runtime.list()
        assert len(children(box)) <= SPARES_MAX

    box(body)  # and its keeper, stopped at once, leaves nothing of them
