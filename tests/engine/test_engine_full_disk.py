"""A container fills the disk that everything lies on: its end is told all the same, and written down when there is room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from atoll.config import Instance
from atoll.kernel import mounts
from engine_harness import EngineDaemon

SIZE, ROOM = 400 << 20, 12 << 20  # while an image is imported, which asks for some; then, for what is left

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def cramped(instance: Instance) -> Iterator[EngineDaemon]:
    """An engine whose home is a small file system of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=710", "tmpfs", instance.home], check=True)
    daemon = EngineDaemon(instance)
    try:
        daemon.start()
        daemon.make_busybox()
        used = SIZE - shutil.disk_usage(instance.home).free
        subprocess.run(["mount", "-o", f"remount,size={used + ROOM}", instance.home], check=True)
        yield daemon
    finally:
        (instance.home / "filler").unlink(missing_ok=True)
        daemon.destroy()
        mounts.unmount(str(instance.home), mounts.MNT_DETACH)


def inspect(engine: EngineDaemon, name: str, field: str) -> object:
    return json.loads(engine.docker("inspect", "-f", f"{{{{json .{field}}}}}", name).stdout)


def fill(engine: EngineDaemon) -> None:
    with (engine.instance.home / "filler").open("wb", buffering=0) as filler:
        block = bytes(1 << 20)
        while len(block) > 1:
            try:
                filler.write(block)
            except OSError:
                block = block[: len(block) // 2]


def test_a_container_that_fills_the_disk(cramped):
    cramped.docker("run", "-d", "--name", "full", "busybox", "sh", "-c", "echo begun; dd if=/dev/zero of=/x bs=64k 2>/dev/null; exit 5")
    assert cramped.docker("wait", "full").stdout == "5\n"
    assert inspect(cramped, "full", "State.Status") == "exited"
    cramped.docker("rm", "full")
    assert cramped.docker("run", "--rm", "busybox", "echo", "room").stdout == "room\n"


def test_exits_and_logs_on_a_full_disk(cramped):
    script = "while [ ! -e /tmp/go ]; do sleep 0.02; done; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; exit 6"
    cramped.docker(
        "run",
        "-d",
        "--name",
        "talks",
        "--tmpfs",
        "/tmp",
        "--log-opt",
        "max-size=64k",
        "--log-opt",
        "max-file=2",
        "busybox",
        "sh",
        "-c",
        script,
    )
    fill(cramped)
    cramped.docker("exec", "talks", "touch", "/tmp/go")
    assert cramped.docker("wait", "talks").stdout == "6\n"  # nobody waits for a log that cannot be written
    assert inspect(cramped, "talks", "State.ExitCode") == 6
    cramped.kill()
    cramped.start()
    assert inspect(cramped, "talks", "State.ExitCode") == 6  # the keeper has kept it
    (cramped.instance.home / "filler").unlink()
    end = time.monotonic() + 10
    while "the exit (code 6) found the disk full, and was kept in memory" not in (cramped.instance.logs / "keeper.log").read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "bytes of its output were lost" in (cramped.instance.logs / "keeper.log").read_text()
    cramped.docker("rm", "talks")
