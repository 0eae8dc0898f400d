"""A group that cannot be emptied or frozen holds up nobody but who asked for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from pathlib import Path

import pytest

from atoll.errors import SystemFailure
from atoll.runtime.groups import REMOVE_TIMEOUT_S, Groups
from atoll.runtime.loop import Loop

FREEZER = Path("/sys/fs/cgroup/freezer")


class StuckGroup:
    """As a Cgroup with a process in uninterruptible sleep."""

    path = "/stuck"

    def __init__(self):
        self.is_stuck = True
        self.is_thawed = False

    def kill(self):
        return not self.is_stuck

    def remove(self):
        return not self.is_stuck

    def freeze(self):
        pass

    def is_frozen(self):
        return not self.is_stuck

    def thaw(self):
        self.is_thawed = True

    def pids(self):
        return [4711]


def run(loop, seconds):
    loop.later(seconds, loop.stop)
    loop.run()


@pytest.fixture
def loop():
    made = Loop({})
    yield made
    signal.set_wakeup_fd(-1)
    made._epoll.close()
    os.close(made._wake_read)
    os.close(made._wake_write)


def test_nothing_waits_for_it(loop, monkeypatch):
    monkeypatch.setattr("atoll.runtime.groups.REMOVE_TIMEOUT_S", 0.03)
    monkeypatch.setattr("atoll.runtime.groups.FREEZE_TIMEOUT_S", 0.03)
    groups, group, told = Groups(loop), StuckGroup(), []
    begun = time.monotonic()
    groups.freeze(group, lambda error: told.append(("freeze", error)))
    groups.remove(group, lambda error: told.append(("remove", error)))
    groups.end(group)
    assert time.monotonic() - begun < 0.02
    assert groups.after("/stuck", lambda: told.append(("gone", None)))
    assert not groups.after("/other", lambda: None)
    run(loop, 0.1)
    assert [what for what, _ in told] == ["freeze", "remove"]
    assert all(isinstance(error, SystemFailure) for _, error in told)
    assert group.is_thawed
    group.is_stuck = False
    loop._stopping = False
    run(loop, 0.3)
    assert told[-1] == ("gone", None)
    assert not groups.after("/stuck", lambda: None)


def test_one_that_the_kernel_will_not_remove_is_left(loop, monkeypatch):
    group, told = StuckGroup(), []

    def refuse():
        raise SystemFailure("remove cgroup /stuck", errno.EPERM)

    monkeypatch.setattr(group, "kill", lambda: True)
    monkeypatch.setattr(group, "remove", refuse)
    groups = Groups(loop)
    groups.end(group)
    assert not groups.after("/stuck", lambda: None)
    groups.remove(group, told.append)
    assert [error.errno for error in told] == [errno.EPERM]


@pytest.mark.skipif(not FREEZER.is_dir(), reason="only the freezer of cgroup v1 keeps the killed from dying")
def test_others_end_in_time(box):
    """Two containers share the host's pids; a child of the first is frozen, in a group inside its own, where no SIGKILL reaches it."""

    async def body(box):
        def share_pids(config):
            config["linux"]["namespaces"] = [item for item in config["linux"]["namespaces"] if item["type"] != "pid"]

        stuck = box.bundle(["sh", "-c", "sleep 1000 & read line"], name="stuck", edit=share_pids)
        other = box.bundle(["sh", "-c", "sleep 0.2; exit 3"], name="other")
        pid = await box.start(stuck, stdin=True, stdin_once=False)
        for _ in range(500):
            if len(pids := await box.runtime.pids(stuck)) == 2:
                break
            await asyncio.sleep(0.01)
        (child,) = [found for found in pids if found != pid]
        inner = FREEZER / f"atoll-{box.instance.id}" / "stuck" / "inner"
        inner.mkdir()
        (inner / "cgroup.procs").write_text(str(child))
        (inner / "freezer.state").write_text("FROZEN")
        try:
            await box.start(other)
            await box.runtime.signal(stuck, 9)
            assert (await asyncio.wait_for(box.runtime.wait(stuck), 0.5)).code == 137
            deleting = asyncio.create_task(box.runtime.delete(stuck))
            begun = time.monotonic()
            assert (await box.runtime.wait(other)).code == 3
            assert (await box.run(["true"]))[0].code == 0
            assert time.monotonic() - begun < REMOVE_TIMEOUT_S  # while the other is still waited for
            assert not deleting.done()
            with pytest.raises(SystemFailure, match="remove cgroup"):
                await deleting
        finally:
            (inner / "freezer.state").write_text("THAWED")
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, 9)
        await asyncio.sleep(0.05)
        await box.runtime.delete(stuck)

    box(body)
