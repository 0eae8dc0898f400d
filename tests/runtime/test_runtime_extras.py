"""What few containers ask for: user and time namespaces, mapped owners, scheduling, personality."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from atoll.errors import InvalidInput, NotSupported
from atoll.runtime import Overlay, StartFailed

MAPS = [{"containerID": 0, "hostID": 100_000, "size": 65536}]


def linux(**fields):
    """An edit of a spec's linux section; `namespaces` are added."""

    def edit(config):
        config["linux"]["namespaces"] += fields.pop("namespaces", [])
        config["linux"].update(fields)

    return edit


def process(**fields):
    return lambda config: config["process"].update(fields)


def test_time_namespace(box):
    async def body(box):
        offsets = {"boottime": {"secs": 5_000_000, "nanosecs": 5}, "monotonic": {"secs": 100}}
        edit = linux(namespaces=[{"type": "time"}], timeOffsets=offsets)
        name = box.bundle(["sh", "-c", "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time; sleep 100"], edit=edit)
        pid = await box.start(name)
        _, out, _ = await box.exec(name, ["cut", "-d.", "-f1", "/proc/uptime"])
        here = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert 5_000_000 <= int(out) - here + 1 <= 5_000_100
        uptime, namespace = box.output(name).splitlines()
        assert int(uptime) >= 5_000_000
        assert namespace == os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
        joined = await box.sh("readlink /proc/self/ns/time", edit=linux(namespaces=[{"type": "time", "path": f"/proc/{pid}/ns/time"}]))
        assert joined.strip() == namespace

    box(body)


def test_user_namespace(box):
    """Its root is nobody on the host, yet the image's files are its own."""

    async def body(box):
        edit = linux(namespaces=[{"type": "user"}], uidMappings=MAPS, gidMappings=MAPS)
        script = (
            "cat /proc/self/uid_map | tr -s ' '; id -u; ls -ln /bin/busybox | cut -d' ' -f1-20 | tr -s ' ' | cut -d' ' -f3,4;"
            "echo x > /etc/new && chown app /etc/new; touch /scratch/y && ls -n /scratch | tail -1 | tr -s ' ' | cut -d' ' -f3;"
            "hostname renamed; echo out > /dev/stdout; umount /proc/keys 2>&1; grep CapBnd /proc/self/status; sleep 100"
        )
        name = box.bundle(
            ["sh", "-c", script], edit=edit, tmpfs={"/scratch": "size=1m,mode=755"}, cap_add=["SYS_ADMIN"], seccomp_profile=None
        )
        pid = await box.start(name)
        for _ in range(500):
            if "CapBnd" in box.output(name):
                break
            await asyncio.sleep(0.01)
        status, out, _ = await box.exec(name, ["sh", "-c", "id; cat /etc/new; hostname; echo again > /dev/stdout"])
        assert status.code == 0
        lines = box.output(name).splitlines()
        assert lines[:4] == [" 0 100000 65536", "0", "0 0", "0"]
        assert "out" in lines
        assert any("can't unmount" in line for line in lines)  # its mounts are locked
        assert out.decode().splitlines() == ["uid=0(root) gid=0(root) groups=0(root)", "x", "renamed", "again"]
        assert os.stat(f"/proc/{pid}").st_uid == 100_000
        new = (box.directory(name) / "upper" / "etc" / "new").stat()
        assert (new.st_uid, new.st_gid) == (101_000, 100_000)
        assert os.stat("/dev/null").st_uid == 0

    box(body)


def test_user_namespace_with_another_user_and_a_terminal(box):
    async def body(box):
        edit = linux(namespaces=[{"type": "user"}], uidMappings=MAPS, gidMappings=MAPS)
        output = await box.sh("id -u; id -g; tty; grep CapEff /proc/self/status", edit=edit, user="app", terminal=True)
        assert output.replace("\r", "").splitlines() == ["1000", "1001", "/dev/pts/0", "CapEff:\t0000000000000000"]
        first = box.bundle(["sleep", "100"], edit=linux(namespaces=[{"type": "user"}], uidMappings=MAPS, gidMappings=MAPS))
        pid = await box.start(first)
        joined = linux(namespaces=[{"type": "user", "path": f"/proc/{pid}/ns/user"}])
        assert (await box.sh("readlink /proc/self/ns/user", edit=joined)).strip() == os.readlink(f"/proc/{pid}/ns/user")

    box(body)


def test_mapped_owners_of_a_bind(box, tmp_path):
    (tmp_path / "file").touch()

    async def body(box):
        mount = {
            "destination": "/mnt",
            "type": "bind",
            "source": str(tmp_path),
            "options": ["rbind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1001, "size": 10}],
        }
        assert await box.sh("stat -c %u:%g /mnt/file; touch /mnt/mine", mounts=[mount], user="app") == "1000:1001\n"
        assert (tmp_path / "mine").stat().st_uid == 0
        del mount["uidMappings"]
        with pytest.raises(InvalidInput, match="/mnt wants mapped owners"):
            await box.run(["true"], mounts=[mount])

    box(body)


def test_scheduling_and_personality(box):
    async def body(box):
        edit = process(
            scheduler={"policy": "SCHED_BATCH", "nice": 5},
            ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 3},
            execCPUAffinity={"final": "0"},
        )

        def both(config):
            edit(config)
            config["linux"]["personality"] = {"domain": "LINUX32"}

        name = box.bundle(["sh", "-c", "uname -m; sleep 100"], edit=both)
        pid = await box.start(name)
        assert os.sched_getscheduler(pid) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, pid) == 5
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)  # that one is for execs
        _, out, _ = await box.exec(name, ["sh", "-c", "cut -d' ' -f19 /proc/self/stat; uname -m; grep Cpus_allowed_list /proc/self/status"])
        nice, machine, *allowed = out.decode().split()
        assert machine != os.uname().machine
        assert (nice, allowed) == ("5", ["Cpus_allowed_list:", "0"])
        assert box.output(name).strip() == machine

    box(body)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (linux(intelRdt={"closID": "x"}), NotSupported, "intelRdt"),
        (linux(netDevices={"eth0": {}}), NotSupported, "netDevices"),
        (linux(mountLabel="system_u:object_r:x"), (InvalidInput, NotSupported), "mountLabel"),
        (process(selinuxLabel="system_u:system_r:x"), (InvalidInput, StartFailed), "SELinux"),
        (linux(timeOffsets={"boottime": {"secs": 1}}), InvalidInput, "needs a time namespace"),
        (linux(namespaces=[{"type": "time"}], timeOffsets={"realtime": {"secs": 1}}), InvalidInput, "no clock realtime"),
        (linux(uidMappings=MAPS, gidMappings=MAPS), InvalidInput, "need a user namespace"),
        (linux(namespaces=[{"type": "user"}]), InvalidInput, "needs linux.uidMappings and linux.gidMappings"),
        (linux(namespaces=[{"type": "user"}], uidMappings=[{"containerID": -1}], gidMappings=MAPS), InvalidInput, "needs containerID"),
        (linux(namespaces=[{"type": "pid"}]), InvalidInput, "names one type twice"),
        (linux(namespaces=[{"type": "nosuch"}]), InvalidInput, "unknown namespace type nosuch"),
        (linux(personality={"domain": "BSD"}), InvalidInput, "unknown personality 'BSD'"),
        (process(scheduler={"policy": "SCHED_MAGIC"}), InvalidInput, "unknown scheduler policy"),
        (process(scheduler={"policy": "SCHED_FIFO", "priority": 1000}), StartFailed, "set the scheduler to SCHED_FIFO: Invalid argument"),
        (process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 9}), InvalidInput, "0 to 7"),
    ],
)
def test_what_cannot_be(box, edit, error, message):
    async def body(box):
        with pytest.raises(error, match=message):
            await box.run(["true"], edit=edit)
        assert await box.runtime.list() == []

    box(body)


def test_a_mount_namespace_by_path_is_refused(box):
    async def body(box):
        with pytest.raises(InvalidInput, match="mount namespace of its own"):
            await box.run(["true"], namespaces={"mount": "/proc/self/ns/mnt"})
        with pytest.raises(InvalidInput, match="need a uts namespace"):
            await box.run(["true"], edit=lambda config: config.update(hostname="x"), namespaces={"mount": None})

    box(body)


def test_many_layers_in_a_user_namespace(box, tmp_path):
    async def body(box):
        layers = []
        for number in range(5):
            layer = tmp_path / f"layer-{number}"
            layer.mkdir()
            (layer / f"file-{number}").touch()
            layers.append(layer)
        name = box.bundle(
            ["sh", "-c", "ls -n /file-* | grep -c ' 0 '"], edit=linux(namespaces=[{"type": "user"}], uidMappings=MAPS, gidMappings=MAPS)
        )
        bundle = box.directory(name)
        await box.start(name, rootfs=Overlay((*layers, box.root), bundle / "upper", bundle / "work"))
        await asyncio.wait_for(box.runtime.wait(name), 10)
        assert box.output(name) == "5\n"

    box(body)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
