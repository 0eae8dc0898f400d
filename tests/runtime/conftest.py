"""A root file system of busybox alone, and a harness that runs containers on a keeper of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.config import Instance
from atoll.errors import Conflict
from atoll.runtime import Attach, ExitStatus, OtherRuntime, Overlay, Runtime, default_spec

BUSYBOX = shutil.which("busybox") or "/bin/busybox"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"box", "any_box"}.intersection(getattr(item, "fixturenames", ())):
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="containers need root"))
            elif not os.path.exists(BUSYBOX):
                item.add_marker(pytest.mark.skip(reason="needs busybox (Debian: busybox-static)"))


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("busybox")
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\napp:x:1001:\naudio:x:29:app\nvideo:x:44:\n")
    (root / "bin" / "no-interpreter").write_text("#!/no/such/interpreter\n")
    (root / "bin" / "not-executable").write_text("#!/bin/sh\n")
    (root / "bin" / "garbage").write_bytes(b"\x7fELF nothing")
    for name, mode in (("no-interpreter", 0o755), ("not-executable", 0o644), ("garbage", 0o755)):
        (root / "bin" / name).chmod(mode)
    return root


class Box:
    """Makes bundles and runs them. Use inside one event loop."""

    def __init__(self, instance: Instance, root: Path, other: OtherRuntime | None = None) -> None:
        self.instance = instance
        self.root = root
        self.other = other
        self.runtime = Runtime(instance)
        self._count = 0

    def bundle(self, args: list[str], *, name: str | None = None, edit: Callable[[dict[str, Any]], None] | None = None, **spec: Any) -> str:
        self._count += 1
        name = name or f"c{self._count}"
        bundle = self.directory(name)
        for part in ("upper", "work"):
            (bundle / part).mkdir(parents=True)
        config = default_spec(args=args, **{"env": [PATH], **spec})
        if edit:
            edit(config)
        (bundle / "config.json").write_text(json.dumps(config))
        return name

    def directory(self, name: str) -> Path:
        return self.instance.containers / name

    async def start(self, name: str, **options: Any) -> int:
        bundle = self.directory(name)
        overlay = Overlay((self.root,), bundle / "upper", bundle / "work")
        return await self.runtime.start(name, bundle, **{"rootfs": overlay, "log": bundle / "log", "runtime": self.other, **options})

    async def run(self, args: list[str], **spec: Any) -> tuple[ExitStatus, str]:
        """Run to the end; the exit and what it wrote, stdout and stderr together."""
        name = self.bundle(args, **spec)
        await self.start(name)
        status = await asyncio.wait_for(self.runtime.wait(name), 20)
        await self.runtime.delete(name)
        return status, self.output(name)

    async def sh(self, script: str, **spec: Any) -> str:
        """What a shell script wrote; it must succeed."""
        status, output = await self.run(["sh", "-c", script], **spec)
        assert status.code == 0, output
        return output

    async def exec(self, name: str, args: list[str], stdin: bytes | None = None, **process: Any) -> tuple[ExitStatus, bytes, bytes]:
        from atoll.runtime.spec import exec_process

        spec = json.loads((self.directory(name) / "config.json").read_text())
        self._count += 1
        exec_id = f"x{self._count}"
        with Attach(stdin=stdin is not None) as attach:
            await self.runtime.exec(name, exec_id, exec_process(spec, args=args, **process), stdin=stdin is not None, attach=attach)
            if attach.stdin:
                await attach.stdin.write(stdin or b"")
                attach.stdin.close()
            assert attach.stdout
            assert attach.stderr
            out, err = await asyncio.wait_for(asyncio.gather(self.read_all(attach.stdout), self.read_all(attach.stderr)), 20)
        return await self.runtime.wait(name, exec_id), out, err

    @staticmethod
    async def read_all(reader: Any) -> bytes:
        data = b""
        while chunk := await reader.read():
            data += chunk
        return data

    def log(self, name: str) -> list[tuple[str, str, str]]:
        """(stream, tag, text) of each record."""
        lines = (self.directory(name) / "log").read_text(errors="surrogateescape").split("\n")[:-1]
        return [(line.split(" ", 3)[1], line.split(" ", 3)[2], line.split(" ", 3)[3]) for line in lines]

    def output(self, name: str) -> str:
        return "".join(text + ("\n" if tag == "F" else "") for _, tag, text in self.log(name))

    async def clean(self) -> None:
        for state in await self.runtime.list():
            if state.status != "exited":
                with contextlib.suppress(Conflict):  # it has just ended
                    await self.runtime.signal(state.id, 9)
                await asyncio.wait_for(self.runtime.wait(state.id), 10)
            await self.runtime.delete(state.id)
        await self.runtime.stop_keeper()


Body = Callable[[Box], Awaitable[Any]]


@pytest.fixture
def box(instance: Instance, busybox_root: Path) -> Iterator[Callable[[Body], Any]]:
    """Call it with an async function of a Box: it runs, then everything is taken away and found to be gone."""
    yield from _boxed(instance, busybox_root, None)


@pytest.fixture(params=["atoll", "runc", "crun"])
def any_box(request: pytest.FixtureRequest, instance: Instance, busybox_root: Path) -> Iterator[Callable[[Body], Any]]:
    """As `box`, once with each runtime that is installed."""
    if request.param == "atoll":
        yield from _boxed(instance, busybox_root, None)
        return
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"needs {request.param} (a Debian package)")
    yield from _boxed(instance, busybox_root, OtherRuntime(request.param, Path(path)))


def _boxed(instance: Instance, busybox_root: Path, other: OtherRuntime | None) -> Iterator[Callable[[Body], Any]]:
    def run(body: Body) -> Any:
        async def main() -> Any:
            box = Box(instance, busybox_root, other)
            try:
                return await asyncio.wait_for(body(box), 60)
            finally:
                await box.clean()

        return asyncio.run(main())

    yield run
    top, name = Path("/sys/fs/cgroup"), f"atoll-{instance.id}*"  # not rglob: groups of other instances come and go under it
    assert [*top.glob(name), *top.glob(f"*/{name}")] == []
    assert str(instance.home) not in Path("/proc/self/mounts").read_text()
