"""The keeper is killed with -9: its containers run on, and the next keeper has their exits, their output and their terminals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time

import pytest

from atoll.errors import Unavailable
from atoll.runtime import Attach, KeeperLost, Runtime, protocol
from keeper_harness import keeper_of, kill_keeper, until


def parent_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(next(line.split()[1] for line in status if line.startswith("PPid:")))


def test_containers_are_taken_over(box):
    async def body(box):
        runs = box.bundle(["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done"], name="runs")
        ends = box.bundle(["sh", "-c", "sleep 0.05; echo last; exit 3"], name="ends")
        pid = await box.start(runs)
        await box.start(ends)
        waiting = [asyncio.create_task(box.runtime.wait(name)) for name in (runs, ends)]
        await until(lambda: box.log(runs))
        before = kill_keeper(box)
        assert (await asyncio.wait_for(waiting[1], 5)).code == 3
        assert box.output(ends) == "last\n"
        states = {state.id: state for state in await box.runtime.list()}
        assert (states[runs].status, states[runs].pid) == ("running", pid)
        assert keeper_of(box) != before
        out = (await box.exec(runs, ["echo", "inside"]))[1]
        assert out == b"inside\n"
        await box.runtime.signal(runs, signal.SIGTERM)
        assert (await asyncio.wait_for(waiting[0], 5)).code == 7
        assert box.output(runs) == "up\nbye\n"
        assert (await box.run(["true"]))[0].code == 0

    box(body)


def test_who_kills_again_and_again(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; echo -n end; exit 9"])
        await box.start(name)
        waiting = asyncio.create_task(box.runtime.wait(name))
        for _ in range(8):
            kill_keeper(box)
            await asyncio.sleep(random.random() * 0.03)
        assert (await asyncio.wait_for(waiting, 20)).code == 9
        assert box.output(name) == "".join(f"{number}\n" for number in range(1, 3001)) + "end"

    box(body)


def test_a_line_begun_before_and_ended_after(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "echo -n one; read x; echo two; read x"])
        with Attach(stdout=False, stderr=False, stdin=True) as attach:
            await box.start(name, stdin=True, stdin_once=False, attach=attach)
            await asyncio.sleep(0.05)
            kill_keeper(box)
        with Attach(stdin=True) as attach:
            await box.runtime.attach(name, None, attach)
            await attach.stdin.write(b"\n")
            assert await asyncio.wait_for(attach.stdout.read(), 5) == b"two\n"
            await attach.stdin.write(b"\n")
            assert (await box.runtime.wait(name)).code == 0
        assert box.log(name) == [("stdout", "F", "onetwo")]

    box(body)


def test_sessions_end_and_say_so(box):
    async def body(box):
        name = box.bundle(["cat"])
        with Attach(stdin=True) as attach, Attach() as inside:
            await box.start(name, stdin=True, attach=attach)
            from atoll.runtime.spec import exec_process

            await box.runtime.exec(
                name, "x", exec_process({"process": {"env": ["PATH=/bin"], "cwd": "/"}}, args=["sleep", "100"]), attach=inside
            )
            assert len(await box.runtime.pids(name)) == 2
            kill_keeper(box)
            assert await asyncio.wait_for(box.read_all(attach.stdout), 5) == b""
            assert await asyncio.wait_for(box.read_all(inside.stdout), 5) == b""
            assert attach.is_lost
            assert inside.is_lost
        await until(lambda: not box.runtime._pending)
        end = time.monotonic() + 5
        while len(await box.runtime.pids(name)) > 1:  # the program of the lost session was ended
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        with Attach(stdin=True) as attach:
            await box.runtime.attach(name, None, attach)
            await attach.stdin.write(b"again\n")
            assert await asyncio.wait_for(attach.stdout.read(), 5) == b"again\n"
        assert not attach.is_lost

    box(body)


def test_an_exec_nobody_is_attached_to_goes_on(box):
    async def body(box):
        from atoll.runtime.spec import exec_process

        name = box.bundle(["sleep", "100"])
        await box.start(name)
        process = exec_process({"process": {"env": ["PATH=/bin"], "cwd": "/"}}, args=["sh", "-c", "sleep 0.2; echo x; exit 4"])
        await box.runtime.exec(name, "x", process)
        kill_keeper(box)
        assert [state.execs for state in await box.runtime.list()] == [("x",)]
        assert (await asyncio.wait_for(box.runtime.wait(name, "x"), 5)).code == 4

    box(body)


def test_a_terminal_goes_on(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "read line; echo got $line; read line; exit 5"], terminal=True)
        await box.start(name, stdin=True, stdin_once=False)
        kill_keeper(box)
        with Attach(stdin=True, stderr=False) as attach:
            await box.runtime.attach(name, None, attach)
            await attach.stdin.write(b"hello\n")
            seen = b""
            while b"got hello" not in seen:
                seen += await asyncio.wait_for(attach.stdout.read(), 5)
            await box.runtime.resize(name, None, 100, 30)
            await attach.stdin.write(b"\n")
            assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 5

    box(body)


def test_starts_under_way_happen_once(box):
    async def body(box):
        names = [box.bundle(["sh", "-c", f"echo {number}; exit {number}"]) for number in range(20)]
        with contextlib.ExitStack() as stack:
            await box.runtime.connect()
            attached = [stack.enter_context(Attach()) for _ in names]
            starts = [asyncio.create_task(box.start(name, attach=attach)) for name, attach in zip(names, attached, strict=True)]
            for _ in range(3):
                await asyncio.sleep(random.random() * 0.03)
                kill_keeper(box)
            await asyncio.wait_for(asyncio.gather(*starts), 20)
            exits = await asyncio.wait_for(asyncio.gather(*map(box.runtime.wait, names)), 20)
        assert [status.code for status in exits] == list(range(20))
        assert [box.output(name) for name in names] == [f"{number}\n" for number in range(20)]

    box(body)


def test_an_exec_under_way_is_not_repeated(box):
    async def body(box):
        from atoll.runtime.spec import exec_process

        name = box.bundle(["sleep", "100"])
        await box.start(name)
        os.kill(keeper_of(box), signal.SIGSTOP)
        starting = asyncio.create_task(box.runtime.exec(name, "x", exec_process({"process": {"env": [], "cwd": "/"}}, args=["/bin/true"])))
        await asyncio.sleep(0.02)
        kill_keeper(box)
        with pytest.raises(KeeperLost, match="try again"):
            await asyncio.wait_for(starting, 5)
        assert (await box.exec(name, ["true"]))[0].code == 0

    box(body)


def test_paused_ones_stay_paused(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        await box.runtime.pause(name)
        kill_keeper(box)
        assert [state.status for state in await box.runtime.list()] == ["paused"]
        await box.runtime.resume(name)
        assert [state.status for state in await box.runtime.list()] == ["running"]

    box(body)


def test_exits_nobody_heard_of_are_told(box):
    """Without any client, two keepers on: the exit waits until somebody asks."""

    async def body(box):
        name = box.bundle(["sh", "-c", "sleep 0.1; exit 6"])
        pid = await box.start(name)
        await box.runtime.close()
        kill_keeper(box)
        await until(lambda: not os.path.exists(f"/proc/{pid}"))
        await until((box.directory(name) / "exit.json").exists)
        kill_keeper(box)
        assert (await box.runtime.wait(name)).code == 6

    box(body)


def test_the_holder_is_killed(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done"])
        pid = await box.start(name)
        first = keeper_of(box)
        os.kill(parent_of(first), signal.SIGKILL)
        await until(lambda: keeper_of(box) != first)
        assert parent_of(pid) == parent_of(keeper_of(box)) == first  # the keeper has become the holder
        kill_keeper(box)
        await box.runtime.signal(name, signal.SIGTERM)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 7

    box(body)


def test_the_holder_of_one_taken_over_is_killed(box):
    """Its parent is nobody of ours then; since Linux 6.15 its end is told all the same, before that only if init is slow."""

    async def body(box):
        name = box.bundle(["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.02; done"])
        pid = await box.start(name)
        kill_keeper(box)
        await box.runtime.list()
        keeper = keeper_of(box)
        os.kill(parent_of(keeper), signal.SIGKILL)
        await until(lambda: keeper_of(box) != keeper)
        assert [(state.pid, state.status) for state in await box.runtime.list()] == [(pid, "running")]
        await box.runtime.signal(name, signal.SIGTERM)
        status = await asyncio.wait_for(box.runtime.wait(name), 5)
        if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15):
            assert (status.code, status.is_unknown) == (7, False)
        else:
            assert (status.code, status.is_unknown) in {(7, False), (255, True)}

    box(body)


def test_keeper_and_holder_are_killed(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        pid = await box.start(name)
        keeper = keeper_of(box)
        os.kill(parent_of(keeper), signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        os.kill(parent_of(keeper), signal.SIGKILL)
        assert await box.runtime.list() == []
        await until(lambda: not os.path.exists(f"/proc/{pid}/exe"))  # nobody reads it any more: it has been ended
        assert (await box.run(["true"]))[0].code == 0

    box(body)


def test_nothing_piles_up(box):
    async def body(box):
        def open_files():
            return len(os.listdir(f"/proc/{keeper_of(box)}/fd"))

        name = box.bundle(["sleep", "100"])
        await box.start(name)
        kill_keeper(box)
        await box.runtime.list()
        before = open_files()
        for _ in range(5):
            kill_keeper(box)
            await box.runtime.list()
            assert (await box.run(["sh", "-c", "echo x"]))[0].code == 0
        other = Runtime(box.instance)
        await other.connect()
        await other.close()
        await asyncio.sleep(0.02)
        assert open_files() == before

    box(body)


def test_a_keeper_is_renewed(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done"])
        pid = await box.start(name)
        first, holder = keeper_of(box), parent_of(keeper_of(box))
        assert not await box.runtime.renew()
        box.runtime._hello["build"] = "another"
        assert await box.runtime.renew()
        assert keeper_of(box) != first
        assert parent_of(pid) == holder
        assert [(state.id, state.pid, state.status) for state in await box.runtime.list()] == [(name, pid, "running")]
        assert (await box.exec(name, ["echo", "x"]))[1] == b"x\n"
        await box.runtime.signal(name, signal.SIGTERM)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 7
        assert box.output(name) == "up\n"

    box(body)


def test_with_any_runtime_and_its_last_hook(any_box, tmp_path):
    async def body(box):
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo gone >> {tmp_path}/notes"]}
        name = box.bundle(
            ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done"],
            edit=lambda config: config.update(hooks={"poststop": [hook]}),
        )
        pid = await box.start(name)
        await until(lambda: box.log(name))
        kill_keeper(box)
        assert [(state.id, state.pid, state.status) for state in await box.runtime.list()] == [(name, pid, "running")]
        assert (await box.exec(name, ["echo", "x"]))[1] == b"x\n"
        await box.runtime.signal(name, signal.SIGTERM)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 7
        kill_keeper(box)
        await box.runtime.delete(name)
        assert (tmp_path / "notes").read_text() == "gone\n"

    any_box(body)


def test_a_keeper_of_the_first_version_is_driven_on(box):
    """It cannot be renewed while it has containers; without any it is stopped and started anew."""

    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        first = keeper_of(box)
        box.runtime._hello = {"version": 1, "pid": first}
        with pytest.raises(Unavailable, match="too old to be renewed while it has containers"):
            await box.runtime.renew()
        assert keeper_of(box) == first
        await box.runtime.signal(name, 9)
        await box.runtime.wait(name)
        await box.runtime.delete(name)
        assert await box.runtime.renew()
        assert keeper_of(box) != first
        assert box.runtime._hello["version"] == protocol.VERSION

    box(body)


def test_code_that_does_not_load_replaces_nothing(box, monkeypatch):
    monkeypatch.setattr("atoll.runtime.spawn._LOAD", "import sys; raise SyntaxError('half an edit')")

    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        first = keeper_of(box)
        box.runtime._hello["build"] = "another"
        with pytest.raises(Unavailable, match="does not load: SyntaxError: half an edit"):
            await box.runtime.renew()
        assert keeper_of(box) == first
        assert (await box.exec(name, ["true"]))[0].code == 0

    box(body)
