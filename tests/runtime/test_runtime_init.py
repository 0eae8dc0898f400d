"""`--init`: the reaper as process 1."""

from __future__ import annotations

import asyncio
import platform

import pytest

from atoll.runtime import Attach, CommandNotExecutable, CommandNotFound, docker_init


def test_the_program_is_a_child(box):
    async def body(box):
        status, output = await box.run(["sh", "-c", "echo $$; cat /proc/1/stat | cut -d' ' -f2; exit 5"], init=True)
        assert status.code == 5
        assert output.splitlines()[0] == "2"

    box(body)


def test_signals_and_orphans(box):
    async def body(box):
        script = "trap 'echo term; exit 6' TERM; (sleep 0.01 & sleep 0.02 &); sleep 0.2; ps -o stat | grep -c Z;"
        script += "echo up; while :; do sleep 0.02; done"
        name = box.bundle(["sh", "-c", script], init=True)
        with Attach() as attach:
            await box.start(name, attach=attach)
            seen = b""
            while not seen.endswith(b"up\n"):
                seen += await asyncio.wait_for(attach.stdout.read(), 5)
            assert seen == b"0\nup\n"
            await box.runtime.signal(name, 15)
            assert await asyncio.wait_for(attach.stdout.read(), 5) == b"term\n"
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 6

    box(body)


def test_a_program_that_dies_by_a_signal(box):
    async def body(box):
        assert (await box.run(["sh", "-c", "kill -KILL $$"], init=True))[0].code == 137

    box(body)


@pytest.mark.parametrize(("args", "error"), [(["nosuch"], CommandNotFound), (["garbage"], CommandNotExecutable)])
def test_a_program_that_is_none(box, args, error):
    async def body(box):
        with pytest.raises(error):
            await box.start(box.bundle(args, init=True))
        assert await box.runtime.list() == []

    box(body)


def test_with_a_terminal(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "echo up; sleep 100"], init=True, terminal=True)
        with Attach(stdin=True, stderr=False) as attach:
            await box.start(name, attach=attach)
            assert await attach.stdout.read() == b"up\r\n"
            await attach.stdin.write(b"\x03")
            await asyncio.wait_for(box.read_all(attach.stdout), 5)
        assert (await box.runtime.wait(name)).code == 130

    box(body)


def test_nothing_of_the_keeper_is_left_in_it(box):
    """A privileged container may read its process 1 (CAP_SYS_PTRACE): it must not be an image of the keeper."""

    async def body(box):
        script = "grep -c . /proc/1/maps; grep VmRSS /proc/1/status;"
        script += "cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/1/comm; cat /proc/1/environ"
        name = box.bundle(["sh", "-c", f"sleep 0.2; {script}"], init=True, privileged=True)
        pid = await box.start(name)
        assert (await asyncio.wait_for(box.runtime.wait(name), 5)).code == 0
        maps, rss, line, comm = box.output(name).splitlines()
        assert pid
        if platform.machine() in {"x86_64", "aarch64"}:
            assert int(maps) <= 6  # itself, the stack and what the kernel maps
            assert int(rss.split()[1]) < 300  # kB
        assert line.startswith("/sbin/docker-init -- sh -c")
        assert comm == "docker-init"

    box(body)


def test_a_machine_it_was_not_written_for():
    assert docker_init.image(7, "m68k") is None
    assert docker_init.image(7, "aarch64") != docker_init.image(8, "aarch64")


def test_a_profile_that_forbids_it(box):
    """execveat is how a descriptor is executed; without it the keeper's image stays and does the same."""

    async def body(box):
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["execveat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        }
        status, output = await box.run(["sh", "-c", "cat /proc/1/comm; exit 4"], init=True, seccomp_profile=profile)
        assert (status.code, output) == (4, "docker-init\n")

    box(body)


def test_a_keeper_with_many_descriptors(box):
    """The init closes what it inherited whatever the numbers: the start is answered when the status socket closes."""

    async def body(box):
        attaches = []
        try:
            idle = box.bundle(["sleep", "100"])
            await box.start(idle)
            for _ in range(140):
                attaches.append(Attach())
                await box.runtime.attach(idle, None, attaches[-1])
            await asyncio.wait_for(box.start(box.bundle(["sleep", "100"], init=True)), 5)
        finally:
            for attach in attaches:
                attach.close()

    box(body)
