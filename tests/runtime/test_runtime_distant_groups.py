"""Containers whose cgroup lies outside the instance's own (`cgroupsPath`, docker's --cgroup-parent)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import pytest

from atoll.errors import Conflict, InvalidInput
from atoll.kernel.cgroups import Cgroup, Layout
from atoll.runtime import launch
from atoll.runtime.resources import from_host_config


@pytest.fixture
def parent(instance):
    """A group that no instance made; as in Docker the parent of a container's group stays."""
    group = Cgroup(Layout.discover(), f"/given-{instance.id}")
    yield group
    group.kill()
    end = time.monotonic() + 5
    while not group.remove():
        assert time.monotonic() < end, group.pids()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("", "/atoll-1a2b3c4d/web"),
        ("below/web", "/atoll-1a2b3c4d/below/web"),
        ("../../etc", "/atoll-1a2b3c4d/etc"),
        ("/given/web", "/given/web"),
        ("//given//../other/./web/", "/other/web"),
        ("user.slice:docker:web", "/atoll-1a2b3c4d/user.slice/docker/web"),
    ],
)
def test_path(asked, path):
    assert launch.cgroup_path("1a2b3c4d", "web", asked) == path


@pytest.mark.parametrize("asked", ["/", "/..", "/a\nb"])
def test_no_path_of_its_own(asked):
    with pytest.raises(InvalidInput, match="cgroupsPath"):
        launch.cgroup_path("1a2b3c4d", "web", asked)


def groups_of(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


def is_there(group):
    return any(Path(directory).exists() for _, directory in group.directories())


def test_group_and_its_limits_are_where_they_were_wanted(any_box, parent):
    async def body(box):
        path = f"{parent.path}/web"
        name = box.bundle(["sleep", "1000"], cgroups_path=path, resources=from_host_config({"PidsLimit": 20}))
        pid = await box.start(name)
        group = Cgroup(parent.layout, path)
        assert pid in group.pids()
        assert group.stats()["pids"]["limit"] == 20
        assert f":{path}\n" in groups_of(pid)
        with pytest.raises(Conflict, match="processes of others"):
            await box.start(box.bundle(["true"], cgroups_path=path))
        await box.runtime.signal(name, signal.SIGKILL)
        await box.runtime.wait(name)
        await box.runtime.delete(name)
        assert not is_there(group)
        assert not (box.instance.run / "groups").exists()

    any_box(body)


def test_what_a_killed_keeper_left_there_is_ended(box, parent):
    """It had made the group and the process in it, and got no further."""
    left = Cgroup(parent.layout, f"{parent.path}/left")
    left.create({})
    words = ";".join(f"echo 0 > {directory}/cgroup.procs" for _, directory in left.directories())
    process = subprocess.Popen(["sh", "-c", f"{words}; echo in; exec sleep 1000"], stdout=subprocess.PIPE)
    assert process.stdout.read(3) == b"in\n"

    async def body(box):
        box.instance.run.mkdir(parents=True, exist_ok=True)
        (box.instance.run / "groups").write_text(f"{left.path}\n")
        await box.run(["true"])
        assert await asyncio.to_thread(process.wait, 5) == -signal.SIGKILL
        process.stdout.close()

    box(body)
