"""Terminals, attached readers and writers, exec, and the bytes in between."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from atoll.errors import Conflict, InvalidInput, NotFound
from atoll.runtime import Attach, CommandNotFound


def test_attached_from_the_first_byte(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "echo out; echo err >&2; printf tail"])
        with Attach() as attach:
            await box.start(name, attach=attach)
            out, err = await asyncio.gather(box.read_all(attach.stdout), box.read_all(attach.stderr))
        assert (out, err) == (b"out\ntail", b"err\n")
        await box.runtime.wait(name)
        assert box.log(name)[-1] == ("stdout", "P", "tail")  # no newline, and none made up
        assert box.output(name).count("\n") == 2

    box(body)


def test_stdin_until_the_writer_ends(box):
    async def body(box):
        name = box.bundle(["cat"])
        data = bytes(range(256)) * 4096  # 1 MiB: more than any pipe holds
        with Attach(stdin=True) as attach:
            await box.start(name, stdin=True, attach=attach)

            async def feed():
                assert await attach.stdin.write(data)
                attach.stdin.close()

            _, out = await asyncio.gather(feed(), box.read_all(attach.stdout))
        assert out == data
        assert (await box.runtime.wait(name)).code == 0

    box(body)


def test_stdin_stays_open_without_stdin_once(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "read a; read b; echo $a$b"])
        await box.start(name, stdin=True, stdin_once=False)
        for word in (b"one\n", b"two\n"):
            with Attach(stdin=True) as attach:
                await box.runtime.attach(name, None, attach)
                await attach.stdin.write(word)
        await box.runtime.wait(name)
        assert box.output(name) == "onetwo\n"

    box(body)


def test_no_stdin_is_dev_null(box):
    async def body(box):
        assert await box.sh("cat; readlink /proc/self/fd/0") == "/dev/null\n"

    box(body)


def test_a_reader_that_leaves_does_not_hurt(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"])
        with Attach() as attach:
            await box.start(name, attach=attach)
            await attach.stdout.read(10)
        assert (await asyncio.wait_for(box.runtime.wait(name), 10)).code == 0
        assert box.output(name).endswith("line 1999\n")

    box(body)


def test_a_slow_reader_loses_nothing(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "dd if=/dev/zero bs=64k count=64 2>/dev/null"])
        with Attach() as attach:
            await box.start(name, attach=attach)
            await asyncio.sleep(0.2)
            assert len(await box.read_all(attach.stdout)) == 4 * 1024 * 1024

    box(body)


def test_two_readers_get_the_same(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "read go; echo $go"])
        with Attach(stdin=True) as first, Attach() as second:
            await box.start(name, stdin=True, attach=first)
            await box.runtime.attach(name, None, second)
            await first.stdin.write(b"both\n")
            assert await asyncio.gather(box.read_all(first.stdout), box.read_all(second.stdout)) == [b"both\n", b"both\n"]
        await box.runtime.wait(name)
        with pytest.raises(Conflict):
            await box.runtime.attach(name, None, Attach())

    box(body)


def test_terminal(box):
    async def body(box):
        script = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo tty; ls -l /dev/console | cut -c1;"
        script += "read line; echo got $line; stty size"
        name = box.bundle(["sh", "-c", script], terminal=True, console_size=(33, 99))
        with Attach(stdin=True, stderr=False) as attach:
            await box.start(name, stdin=True, attach=attach)
            seen = b""
            while b"\nc" not in seen:
                seen += await asyncio.wait_for(attach.stdout.read(), 5)
            await box.runtime.resize(name, None, 120, 40)
            await attach.stdin.write(b"hello\n")
            seen += await asyncio.wait_for(box.read_all(attach.stdout), 5)
        assert seen.decode().split("\r\n") == ["/dev/pts/0", "33 99", "tty", "c", "hello", "got hello", "40 120", ""]
        assert (await box.runtime.wait(name)).code == 0
        assert "got hello" in box.output(name)

    box(body)


def test_resize_without_terminal(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        with pytest.raises(InvalidInput, match="no terminal"):
            await box.runtime.resize(name, None, 80, 25)

    box(body)


def test_exec(box):
    async def body(box):
        name = box.bundle(["sleep", "100"], hostname="inner", env=["PATH=/bin", "COLOUR=blue"])
        pid = await box.start(name)
        status, out, err = await box.exec(name, ["sh", "-c", "hostname; echo $COLOUR; echo err >&2; exit 3"])
        assert (status.code, out, err) == (3, b"inner\nblue\n", b"err\n")
        status, out, _ = await box.exec(name, ["cat"], stdin=b"through")
        assert (status.code, out) == (0, b"through")
        _, out, _ = await box.exec(name, ["sh", "-c", "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done"])
        inside = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup")]
        assert out.decode().split() == inside
        _, out, _ = await box.exec(name, ["cat", "/proc/self/cgroup"])
        assert out.count(f"/{name}\n".encode()) == out.count(b"\n")
        _, out, _ = await box.exec(name, ["sh", "-c", "ls /proc/self/fd"])
        assert out.decode().split() == ["0", "1", "2", "3"]  # the last is ls reading the directory

    box(body)


def test_exec_that_cannot_start(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        with pytest.raises(CommandNotFound, match="executable file not found"):
            await box.exec(name, ["nosuchcmd"])
        with pytest.raises(CommandNotFound, match=r'chdir to cwd \("/no/where"\)'):
            await box.exec(name, ["true"], cwd="/no/where")
        with pytest.raises(InvalidInput, match="unable to find user nobody-here"):
            await box.exec(name, ["true"], user="nobody-here")
        with pytest.raises(NotFound):
            await box.runtime.exec("nothere", "x", {"args": ["true"], "cwd": "/"})
        assert (await box.exec(name, ["true"]))[0].code == 0

    box(body)


def test_exec_with_terminal(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        from atoll.runtime.spec import exec_process

        spec = json.loads((box.directory(name) / "config.json").read_text())
        process = exec_process(spec, args=["sh", "-c", "tty; stty size; sleep 0.1"], terminal=True, console_size=(11, 22))
        with Attach(stdin=True, stderr=False) as attach:
            await box.runtime.exec(name, "x", process, stdin=True, attach=attach)
            assert await box.read_all(attach.stdout) == b"/dev/pts/0\r\n11 22\r\n"
        assert (await box.runtime.wait(name, "x")).code == 0

    box(body)


def test_exec_ends_with_its_container(box):
    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        running = asyncio.create_task(box.exec(name, ["sleep", "100"]))
        await asyncio.sleep(0.3)
        await box.runtime.signal(name, 9)
        status, _, _ = await running
        assert status.signal == 9
        assert (await box.runtime.wait(name)).code == 137

    box(body)
