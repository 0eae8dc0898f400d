"""The engine dies, the keeper does not. (What follows the keeper's own death is in test_runtime_adoption.)"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from atoll.errors import Conflict
from atoll.runtime import Attach, Runtime

ENGINE = """
import asyncio, sys
from pathlib import Path
from atoll.config import Instance
from atoll.runtime import Runtime, Overlay
home, root, *names = map(Path, sys.argv[1:])
async def main():
    runtime = Runtime(Instance(home))
    for name in names:
        bundle = Instance(home).containers / name
        await runtime.start(str(name), bundle, rootfs=Overlay((root,), bundle / "upper", bundle / "work"), log=bundle / "log", stdin=True,
                            stdin_once=False)
    print("up", flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""


def test_containers_outlive_the_engine(box):
    async def body(box):
        box.bundle(["sh", "-c", "echo first; read line; echo $line; exit 3"], name="ends")
        box.bundle(["sh", "-c", "echo first; read line; echo $line; exit 4"], name="runs")
        command = [sys.executable, "-c", ENGINE, str(box.instance.home), str(box.root), "ends", "runs"]
        engine = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, start_new_session=True)
        assert await engine.stdout.readline() == b"up\n"
        os.killpg(engine.pid, signal.SIGKILL)
        await engine.wait()
        with Attach(stdin=True) as attach:
            await box.runtime.attach("ends", None, attach)
            await attach.stdin.write(b"bye\n")
            assert await box.read_all(attach.stdout) == b"bye\n"
        assert (await box.runtime.wait("ends")).code == 3
        states = {state.id: state for state in await box.runtime.list()}
        assert states["runs"].status == "running"
        assert states["ends"].exit.code == 3
        assert json.loads((box.directory("ends") / "exit.json").read_text())["code"] == 3
        other = Runtime(box.instance)
        await other.connect()
        waiting = asyncio.create_task(other.wait("runs"))
        with Attach(stdin=True) as attach:
            await box.runtime.attach("runs", None, attach)
            await attach.stdin.write(b"on\n")
        assert (await waiting).code == 4
        await other.close()
        assert box.output("runs") == "first\non\n"

    box(body)


def test_events_reach_every_client(box):
    async def body(box):
        other = Runtime(box.instance)
        await other.connect()
        seen = []
        box.runtime.on_exit.append(lambda status: seen.append((status.id, status.exec_id, status.code)))

        heard = asyncio.get_running_loop().create_future()
        other.on_exit.append(heard.set_result)
        status, _ = await box.run(["sh", "-c", "exit 9"])
        assert await asyncio.wait_for(heard, 5) == status
        assert seen == [("c1", None, 9)]
        await other.close()

    box(body)


def test_one_keeper_for_many_engines_at_once(box):
    async def body(box):
        runtimes = [Runtime(box.instance) for _ in range(8)]
        await asyncio.gather(*(runtime.connect() for runtime in runtimes))
        pids = {(await runtime._call("hello"))["pid"] for runtime in runtimes}
        assert len(pids) == 1
        for runtime in runtimes:
            await runtime.close()

    box(body)


def test_terminate_ends_containers_in_order(box):
    async def body(box):
        name = box.bundle(["sleep", "1000"])
        await box.start(name)
        os.kill(int((box.instance.run / "keeper.pid").read_text()), signal.SIGTERM)
        await asyncio.wait_for(box.runtime._gone.wait(), 10)
        assert json.loads((box.directory(name) / "exit.json").read_text())["code"] == 137
        assert not box.instance.keeper_socket.exists()

    box(body)


def test_conflicts(box):
    async def body(box):
        name = box.bundle(["sleep", "1000"])
        await box.start(name)
        with pytest.raises(Conflict, match="already has a container"):
            await box.start(name)
        with pytest.raises(Conflict, match="stop it before"):
            await box.runtime.delete(name)
        with pytest.raises(Conflict, match="1 containers"):
            await box.runtime.stop_keeper()

    box(body)


def test_fifty_at_once(box):
    async def body(box):
        names = [box.bundle(["sh", "-c", f"echo {number}; exit {number}"]) for number in range(50)]

        async def one(name):
            await box.start(name)
            status = await box.runtime.wait(name)
            await box.runtime.delete(name)
            return status.code

        assert await asyncio.gather(*map(one, names)) == list(range(50))
        assert [box.output(name) for name in names] == [f"{number}\n" for number in range(50)]

    box(body)


def test_the_keeper_leaks_no_descriptors(box):
    async def body(box):
        def open_files():
            return len(os.listdir(f"/proc/{int((box.instance.run / 'keeper.pid').read_text())}/fd"))

        await box.run(["true"])
        before = open_files()
        for _ in range(5):
            await box.run(["sh", "-c", "echo x"])
            name = box.bundle(["sleep", "100"], terminal=True)
            await box.start(name)
            await box.exec(name, ["true"], stdin=b"x")
            with Attach(stdin=True) as attach:
                await box.runtime.attach(name, None, attach)
            await box.runtime.signal(name, 9)
            await box.runtime.wait(name)
            await box.runtime.delete(name)
            with pytest.raises(Exception, match="not found"):
                await box.run(["nosuch"])
        await asyncio.sleep(0.05)
        assert open_files() == before

    box(body)


def test_the_keeper_is_small(box):
    async def body(box):
        await box.run(["true"])
        keeper = int((box.instance.run / "keeper.pid").read_text())
        with open(f"/proc/{keeper}/status", encoding="ascii") as status:  # noqa: ASYNC230
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert resident < 16 * 1024  # KiB

    box(body)


def test_the_keeper_hides_itself(box):
    async def body(box):
        await box.run(["true"])
        keeper = int((box.instance.run / "keeper.pid").read_text())
        assert os.stat(box.instance.keeper_socket).st_mode & 0o777 == 0o600
        with open(f"/proc/{keeper}/limits", encoding="ascii") as limits:  # noqa: ASYNC230
            soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
        assert soft == hard
        with open(f"/proc/{keeper}/cgroup", encoding="ascii") as groups:  # noqa: ASYNC230
            assert f"/atoll-{box.instance.id}/keeper\n" in groups.read()

    box(body)
