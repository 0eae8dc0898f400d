"""What a container sees and may do: namespaces, root, devices, masks, user, capabilities, seccomp."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.errors import InvalidInput
from atoll.kernel import capabilities
from atoll.runtime import StartFailed
from atoll.runtime.spec import DEFAULT_CAPABILITIES, PRIVATE_NAMESPACES


def test_namespaces_are_its_own(box):
    async def body(box):
        output = await box.sh(
            "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done;"
            "echo $$; hostname; ip -o link | wc -l; ip addr show lo",
            hostname="box",
        )
        *names, pid, hostname, links = output.split("\n")[:9]
        host = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup")]
        assert [name == other for name, other in zip(names, host, strict=True)] == [False] * 5 + [True]  # Docker's default on cgroup v1
        assert (pid, hostname, links) == ("1", "box", "1")
        assert "127.0.0.1/8" in output  # the loopback is up

    box(body)


def test_cgroup_namespace_hides_the_path(box):
    async def body(box):
        output = await box.sh("cat /proc/self/cgroup", namespaces={**PRIVATE_NAMESPACES, "cgroup": None})
        assert {line.split(":", 2)[2] for line in output.splitlines()} == {"/"}

    box(body)


def test_host_namespaces_where_none_are_asked_for(box):
    async def body(box):
        output = await box.sh(
            "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; ls /proc | grep -c '^[0-9]'", namespaces={"mount": None}
        )
        assert output.splitlines()[:2] == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/pid")]

    box(body)


def test_joins_a_network_namespace_by_path(box):
    async def body(box):
        first = box.bundle(["sleep", "100"])
        pid = await box.start(first)
        output = await box.sh("readlink /proc/self/ns/net", namespaces={**PRIVATE_NAMESPACES, "network": f"/proc/{pid}/ns/net"})
        assert output.strip() == os.readlink(f"/proc/{pid}/ns/net")

    box(body)


def test_joins_a_pid_namespace_by_path(box):
    async def body(box):
        first = box.bundle(["sleep", "99999"])
        pid = await box.start(first)
        output = await box.sh("ps", namespaces={**PRIVATE_NAMESPACES, "pid": f"/proc/{pid}/ns/pid"})
        assert "sleep 99999" in output
        assert await box.sh("echo $$") == "1\n"  # the keeper is back in its own

    box(body)


def test_root_file_system(box):
    async def body(box):
        name = box.bundle(["sh", "-c", "echo new > /etc/new; rm /etc/group; echo /*; cat /proc/mounts | grep ' / '"])
        await box.start(name)
        await box.runtime.wait(name)
        entries, mount = box.output(name).splitlines()
        assert entries.split() == ["/bin", "/dev", "/etc", "/proc", "/root", "/sys", "/tmp"]
        assert mount.startswith("overlay / overlay rw")
        assert (box.directory(name) / "upper" / "etc" / "new").read_text() == "new\n"
        assert (box.root / "etc" / "group").exists()
        assert not (box.root / "etc" / "new").exists()
        await box.runtime.delete(name)
        await box.start(name)  # a volatile upper directory can be mounted again
        assert (await box.runtime.wait(name)).code == 0

    box(body)


def test_many_layers_and_odd_paths(box, tmp_path):
    async def body(box):
        from atoll.runtime import Overlay

        layers = []
        for number in range(120):
            layer = tmp_path / f"{'x' * 40}:{number},"
            layer.mkdir()
            (layer / f"file-{number}").touch()
            layers.append(layer)
        name = box.bundle(["sh", "-c", "ls / | grep -c file-"])
        bundle = box.directory(name)
        await box.start(name, rootfs=Overlay((*layers, box.root), bundle / "upper", bundle / "work"))
        await box.runtime.wait(name)
        assert box.output(name) == "120\n"

    box(body)


def test_readonly_root(box):
    async def body(box):
        output = await box.sh(
            "touch /x 2>&1; touch /dev/shm/y && echo shm; touch /tmp/z && echo tmp", readonly_rootfs=True, tmpfs={"/tmp": "size=1m"}
        )
        assert output == "touch: /x: Read-only file system\nshm\ntmp\n"

    box(body)


def test_devices(box):
    async def body(box):
        output = await box.sh(
            "cd /dev; ls | tr '\\n' ' '; echo; for d in null zero full random urandom tty; do test -c $d || echo no $d; done;"
            "for l in fd stdin ptmx; do readlink $l; done;"
            "mknod /tmp/disk b 254 0 && cat /tmp/disk; mknod /tmp/n c 1 3 && echo x > /tmp/n && echo null"
        )
        names, *rest = output.splitlines()
        assert set(names.split()) >= {
            "fd",
            "full",
            "mqueue",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "zero",
        }
        assert rest[:3] == ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]
        said = "\n".join(rest[3:])  # two pipes: in either order
        assert "can't open '/tmp/disk': Operation not permitted" in said  # may be made, not opened
        assert "null" in rest[3:]

    box(body)


def test_added_device(box):
    from atoll.runtime.devices import host_devices

    async def body(box):
        output = await box.sh("ls -l /dev/mine | cut -c1; head -c 3 /dev/mine | wc -c", devices=host_devices("/dev/zero", "/dev/mine", "r"))
        assert output.split() == ["c", "3"]

    box(body)


def test_masked_and_readonly_paths(box):
    async def body(box):
        output = await box.sh(
            "cat /proc/timer_list | wc -c; cat /proc/keys | wc -c; ls /proc/acpi 2>/dev/null | wc -l; ls /sys/firmware | wc -l;"
            "echo 1 > /proc/sys/kernel/domainname; touch /sys/x; mkdir /sys/fs/cgroup/pids/x; true"
        )
        lines = output.splitlines()
        assert lines[:4] == ["0"] * 4
        assert len(lines[4:]) == 3
        assert all("Read-only file system" in line for line in lines[4:])

    box(body)


def test_default_capabilities(box):
    async def body(box):
        output = await box.sh("grep Cap /proc/self/status")
        sets = {line.split(":")[0]: int(line.split()[1], 16) for line in output.splitlines()}
        expected = capabilities.mask(DEFAULT_CAPABILITIES) & capabilities.available()
        assert len(DEFAULT_CAPABILITIES) == 14
        assert sets == {"CapInh": 0, "CapPrm": expected, "CapEff": expected, "CapBnd": expected, "CapAmb": 0}

    box(body)


def test_another_user(box):
    async def body(box):
        script = "id; echo $HOME; pwd; grep CapEff /proc/self/status; echo to-stdout > /dev/stdout; touch /root-only"
        status, output = await box.run(["sh", "-c", script], user="app", group_add=["video", "77"], cwd="/work/dir")
        assert status.code == 1
        assert output.splitlines()[:5] == [
            "uid=1000(app) gid=1001(app) groups=29(audio),44(video),77,1001(app)",
            "/home/app",
            "/work/dir",
            "CapEff:\t0000000000000000",
            "to-stdout",
        ]

    box(body)


@pytest.mark.parametrize(
    ("user", "expected"), [("1000:44", "uid=1000(app) gid=44(video) groups=44(video)"), ("4242", "uid=4242 gid=0(root) groups=0(root)")]
)
def test_users_by_number(box, user, expected):
    async def body(box):
        assert (await box.sh("id", user=user)).strip() == expected

    box(body)


def test_unknown_user(box):
    async def body(box):
        with pytest.raises(InvalidInput, match="unable to find user ghost: no matching entries in passwd file"):
            await box.run(["true"], user="ghost")

    box(body)


def test_seccomp(box):
    async def body(box):
        script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; unshare -U true; mount -t tmpfs x /tmp; true"
        lines = (await box.sh(script, no_new_privileges=True)).splitlines()
        assert lines[:2] == ["NoNewPrivs:\t1", "Seccomp:\t2"]
        assert lines[2] == "unshare: unshare(0x10000000): Operation not permitted"
        assert "denied" in lines[3] or "not permitted" in lines[3]
        cache = list((box.instance.cache / "seccomp").iterdir())
        assert len(cache) == 1
        assert "Seccomp:\t0" in await box.sh("grep Seccomp: /proc/self/status", seccomp_profile=None)

    box(body)


def test_privileged(box):
    async def body(box):
        script = "grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo mounted; touch /proc/sys/kernel/domainname && echo rw"
        output = await box.sh(script, privileged=True)
        lines = output.splitlines()
        assert int(lines[0].split()[1], 16) == capabilities.mask(capabilities.NAMES) & capabilities.available()
        assert "mounted" in lines
        assert lines[-1] == "rw"

    box(body)


def test_bind_mounts(box, tmp_path):
    async def body(box):
        (tmp_path / "file").write_text("content\n")
        os.mkdir(tmp_path / "data")
        mounts = [
            {"destination": "/etc/given", "type": "bind", "source": str(tmp_path / "file"), "options": ["rbind", "ro", "rprivate"]},
            {"destination": "/deep/down/data", "type": "bind", "source": str(tmp_path / "data"), "options": ["rbind", "rw", "rprivate"]},
        ]
        output = await box.sh("cat /etc/given; echo x > /etc/given; echo hi > /deep/down/data/out; true", mounts=mounts)
        assert output.splitlines()[0] == "content"
        assert "Read-only file system" in output
        assert (tmp_path / "data" / "out").read_text() == "hi\n"

    box(body)


def test_mount_targets_never_leave_the_root(box, tmp_path):
    """Symlinks of the image's that point out of it: absolute, relative, and to nowhere (CVE-2019-16884 and its kin)."""

    async def body(box):
        outside = tmp_path / "outside"
        outside.mkdir()
        evil = tmp_path / "evil"
        evil.mkdir()
        (evil / "absolute").symlink_to(outside)
        (evil / "relative").symlink_to("../../../../../../.." + str(outside))
        (evil / "fresh").symlink_to(f"{outside}/made")
        (evil / "proc-link").symlink_to("/proc/1/root")
        from atoll.runtime import Overlay

        mounts = [
            {"destination": f"/{name}/in", "type": "tmpfs", "source": "tmpfs", "options": []} for name in ("absolute", "relative", "fresh")
        ]
        name = box.bundle(["sh", "-c", "grep -c /outside /proc/mounts"], mounts=mounts)
        bundle = box.directory(name)
        await box.start(name, rootfs=Overlay((evil, box.root), bundle / "upper", bundle / "work"))
        await box.runtime.wait(name)
        assert box.output(name) == "3\n"
        assert list(outside.iterdir()) == []
        bad = box.bundle(["true"], mounts=[{"destination": "/proc-link/x", "type": "tmpfs", "source": "tmpfs", "options": []}])
        bundle = box.directory(bad)
        with pytest.raises(StartFailed, match="Too many levels of symbolic links"):
            await box.start(bad, rootfs=Overlay((evil, box.root), bundle / "upper", bundle / "work"))

    box(body)


@pytest.mark.parametrize("number", range(3, 12))
def test_workdir_in_a_leaked_descriptor(box, number):
    """CVE-2024-21626: a working directory of /proc/self/fd/N must not be the host's."""

    async def body(box):
        with pytest.raises((StartFailed, InvalidInput)):
            await box.run(["ls"], cwd=f"/proc/self/fd/{number}")

    box(body)


def test_no_descriptor_reaches_the_container(box):
    async def body(box):
        assert (await box.sh("ls /proc/self/fd | tr '\\n' ' '")).split() == ["0", "1", "2", "3"]

    box(body)


def test_the_interpreter_cannot_be_overwritten(box):
    """CVE-2019-5736: an entrypoint that is /proc/self/exe runs the program that starts the container, and then opens it for writing."""

    async def body(box):
        name = box.bundle(["sleep", "100"])
        await box.start(name)
        keeper = int((box.instance.run / "keeper.pid").read_text())
        assert os.readlink(f"/proc/{keeper}/exe").startswith("/memfd:atoll-keeper")
        with pytest.raises(OSError, match=r"Operation not permitted|Text file busy"):
            os.close(os.open(f"/proc/{keeper}/exe", os.O_WRONLY))
        with pytest.raises(StartFailed):
            await box.exec(name, ["/proc/self/exe"])  # it finds no library of its own in the root

    box(body)


def test_sysctl_limits_and_oom_score(box):
    async def body(box):
        output = await box.sh(
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/core/somaxconn;"
            "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; umask",
            sysctls={"net.core.somaxconn": "777"},
            rlimits=[{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1 << 40}],
            oom_score_adj=300,
            umask=0o027,
        )
        start, somaxconn, soft, hard, score, umask = output.split()
        assert (start, somaxconn, soft, score, umask) == ("0", "777", "512", "300", "0027")
        assert int(hard) >= 512

    box(body)


def test_environment(box):
    async def body(box):
        output = await box.sh("env", env=["PATH=/bin", "A=1", "A=2", "WITH==eq=", "LINES=a\nb", "UMLAUT=ü"])
        assert {"A=2", "WITH==eq=", "LINES=a", "b", "UMLAUT=ü", "HOME=/root"} <= set(output.splitlines())
        with pytest.raises(InvalidInput):
            await box.run(["true"], env=["PATH=/bin", "NUL=\0"])

    box(body)


def test_shared_memory_size(box):
    async def body(box):
        assert (await box.sh("df -m /dev/shm | tail -1")).split()[1] == "64"
        assert (await box.sh("df -m /dev/shm | tail -1", shm_size=1024 * 1024)).split()[1] == "1"

    box(body)


def test_host_is_not_visible(box):
    async def body(box):
        marker = Path("/tmp") / f"{box.instance.id}-marker"
        marker.touch()
        try:
            assert marker.name not in await box.sh("ls /tmp; ls -R /proc/1/root | head -50")
        finally:
            marker.unlink()

    box(body)


def test_the_hosts_null_keeps_its_owner(box):
    async def body(box):
        status, _ = await box.run(["true"], user="1000:1001")
        assert status.code == 0

    before = os.stat("/dev/null").st_uid
    box(body)
    assert os.stat("/dev/null").st_uid == before


def test_compiled_filters_are_private(box):
    async def body(box):
        await box.run(["true"])
        places = [box.instance.cache, *box.instance.cache.rglob("*")]
        assert len(places) > 2
        assert [oct(place.stat().st_mode & 0o077) for place in places] == ["0o0"] * len(places)

    box(body)


def test_a_filter_cut_by_a_power_loss_is_compiled_anew(box):
    async def body(box):
        await box.run(["true"])
        (cached,) = (box.instance.cache / "seccomp").iterdir()
        cached.write_bytes(b"")
        assert "Seccomp:\t2" in await box.sh("cat /proc/self/status")
        assert cached.stat().st_size

    box(body)


def test_a_part_of_a_source_is_found_inside_it(box, tmp_path):
    """Whatever was put there since somebody last looked."""
    (tmp_path / "volume" / "part").mkdir(parents=True)
    (tmp_path / "volume" / "part" / "file").write_text("inside")
    (tmp_path / "volume" / "relative").symlink_to("../..")
    (tmp_path / "volume" / "absolute").symlink_to("/etc")
    (tmp_path / "volume" / "link").symlink_to("/part")

    def mount(part):
        options = ["rbind", "ro", f"x-atoll.subpath={part}"]
        return [{"destination": "/mnt", "type": "bind", "source": str(tmp_path / "volume"), "options": options}]

    async def body(box):
        for part in ("part", "link"):
            assert await box.sh("cat /mnt/file", mounts=mount(part)) == "inside"
        assert (await box.sh("ls /mnt", mounts=mount("relative"))).split() == ["absolute", "link", "part", "relative"]
        with pytest.raises(StartFailed, match="No such file"):
            await box.start(box.bundle(["true"], mounts=mount("absolute")))

    box(body)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda config: config["process"].update(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5}] * 2), "given twice"),
        (
            lambda config: config["process"].update(rlimits=[{"type": "RLIMIT_TEST", "soft": 5, "hard": 5}]),
            "invalid rlimit type: RLIMIT_TEST",
        ),
    ],
)
def test_rlimits_that_cannot_be(box, edit, message):
    async def body(box):
        with pytest.raises(InvalidInput, match=message):
            await box.run(["true"], edit=edit)

    box(body)


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("network", "/proc/self/ns/ipc", "Invalid argument"),  # of another type
        ("ipc", "/no/such/namespace", "No such file"),
        ("uts", "/etc/passwd", "Invalid argument"),  # none at all
        ("pid", "/proc/self/ns/net", "Invalid argument"),
        ("pid", "/no/such/namespace", "No such file"),
    ],
)
def test_namespaces_that_cannot_be_joined(box, kind, path, message):
    async def body(box):
        with pytest.raises(StartFailed, match=message):
            await box.run(["true"], namespaces={**PRIVATE_NAMESPACES, kind: path})
        assert (await box.sh("echo $$")) == "1\n"

    box(body)
