"""The keeper is killed at each of its system calls of a start and an end, one after the other: the program runs once all the same."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import shutil
import subprocess

import pytest

from atoll.errors import NotFound
from atoll.runtime import KeeperLost
from keeper_harness import keeper_of

# Between two of them nothing changes that another keeper would see.
CALLS = ("clone3", "memfd_create", "pwrite64", "recvfrom", "recvmsg", "sendmsg", "wait4", "waitid")
KINDS = ("mount", "pid", "ipc", "uts", "network")

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


@contextlib.contextmanager
def traced(box, *options):
    command = ["strace", "-q", "-p", str(keeper_of(box)), "-o", str(box.instance.home / "trace"), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            with open(f"/proc/{keeper_of(box)}/status", encoding="ascii") as status:
                while f"TracerPid:\t{tracer.pid}\n" not in status.read():
                    assert tracer.poll() is None, tracer.stderr.read()
                    status.seek(0)
            yield
        finally:
            tracer.kill()


class Runs:
    """Of a program that leaves a mark outside each time it runs."""

    def __init__(self, box, tmp_path):
        self._box = box
        self._marks = tmp_path / "marks"
        self._count = 0

    async def one(self, *, expected):
        """(how it ended, what it printed, the marks that it left)."""
        self._count += 1
        name, marks = f"run{self._count}", self._marks / str(self._count)
        marks.mkdir(parents=True)
        bind = {"destination": "/marks", "type": "bind", "source": str(marks), "options": ["rbind"]}
        self._box.bundle(
            ["sh", "-c", "echo run >> /marks/ran; echo run; exit 9"], name=name, edit=lambda config: config["mounts"].append(bind)
        )
        if expected:
            self._box.runtime.expect(name, KINDS)
        await self._box.start(name)
        status = await self._box.runtime.wait(name)
        with contextlib.suppress(NotFound):  # it had been done already
            await self._box.runtime.delete(name)
        return status.code, self._box.output(name), (marks / "ran").read_text()


async def another_keeper(box):
    """From the beginning: one that is killed too often is followed ever more slowly."""
    try:
        await box.runtime.stop_keeper()
    except KeeperLost:  # the kill came only now
        await box.runtime.stop_keeper()
    await box.runtime.connect()


@pytest.mark.parametrize("expected", [False, True], ids=["cold", "expected"])
def test_the_program_runs_once(box, tmp_path, expected):
    async def body(box):
        runs = Runs(box, tmp_path)
        await runs.one(expected=expected)
        with traced(box, "-e", f"trace={','.join(CALLS)}"):
            await runs.one(expected=expected)
        made = collections.Counter(line.partition("(")[0] for line in (box.instance.home / "trace").read_text().splitlines())
        assert {"pwrite64", "recvmsg", "sendmsg"} <= set(made)
        wrong, kills = {}, 0
        for call in CALLS:
            for number in range(1, made[call] + 1):
                keeper = keeper_of(box)
                with traced(box, "-e", f"inject={call}:signal=KILL:when={number}"):
                    seen = await asyncio.wait_for(runs.one(expected=expected), 10)
                kills += keeper_of(box) != keeper
                await another_keeper(box)
                if seen != (9, "run\n", "run\n"):
                    wrong[call, number] = seen
        assert wrong == {}
        assert kills >= 0.8 * made.total()  # the number of some differs from run to run

    box(body)
