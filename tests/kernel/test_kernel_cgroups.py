"""Control groups: on this machine's own hierarchies, and on a made-up v2 tree."""

from __future__ import annotations

import os
import time

import pytest

from atoll.errors import NotSupported
from atoll.kernel.cgroups import Cgroup, Layout, device_program, v1, v2

MOUNTINFO = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
97 31 0:37 / /copy/sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""


def test_layout(tmp_path):
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    layout = Layout.discover(str(tmp_path / "mountinfo"))
    assert layout.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
    }
    assert layout.named == ("/sys/fs/cgroup/systemd",)
    assert layout.unified == "/sys/fs/cgroup/unified"
    assert layout.mode == "hybrid"
    assert len(layout.points) == 3


@pytest.fixture
def v2_tree(tmp_path):
    """A v2 hierarchy's files, as far as they are written and read."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for directory in (tmp_path, tmp_path / "atoll-x", tmp_path / "atoll-x" / "c"):
        directory.mkdir(exist_ok=True)
        for name in (
            "cgroup.subtree_control",
            "memory.max",
            "memory.swap.max",
            "memory.low",
            "cpu.max",
            "cpu.weight",
            "pids.max",
            "io.weight",
        ):
            (directory / name).write_text("")
    return Layout({}, (), str(tmp_path), frozenset(("cpuset", "cpu", "io", "memory", "pids")))


def test_v2_limits(v2_tree, tmp_path):
    group = Cgroup(v2_tree, "/atoll-x/c")
    group.create(
        {
            "memory": {"limit": 1000, "swap": 1500, "reservation": 500},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024},
            "pids": {"limit": 7},
            "blockIO": {"weight": 500},
        }
    )
    directory = tmp_path / "atoll-x" / "c"
    read = {path.name: path.read_text() for path in directory.iterdir()}
    assert read["memory.max"] == "1000"
    assert read["memory.swap.max"] == "500"
    assert read["memory.low"] == "500"
    assert read["cpu.max"] == "50000 100000"
    assert read["cpu.weight"] == "39"
    assert read["pids.max"] == "7"
    assert read["io.weight"] == "4950"
    assert "+" in (tmp_path / "cgroup.subtree_control").read_text()
    assert "+" in (tmp_path / "atoll-x" / "cgroup.subtree_control").read_text()
    assert read["cgroup.subtree_control"] == ""


def test_v2_usage(v2_tree, tmp_path):
    directory = tmp_path / "atoll-x" / "c"
    for name, text in {
        "cpu.stat": "usage_usec 7\nuser_usec 5\nsystem_usec 2\nnr_throttled 3\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1\ninactive_file 9\n",
        "memory.events": "low 0\nmax 2\noom 1\noom_kill 1\n",
        "pids.current": "2\n",
        "pids.max": "max\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:1 rbytes=5 wbytes=0 rios=1 wios=0\n",
    }.items():
        (directory / name).write_text(text)
    group = Cgroup(v2_tree, "/atoll-x/c")
    stats = group.stats()
    assert stats["cpu"]["usage_ns"] == 7000
    assert stats["cpu"]["throttled_periods"] == 3
    assert (stats["memory"]["usage"], stats["memory"]["limit"], stats["memory"]["inactive_file"]) == (4096, None, 9)
    assert stats["pids"] == {"current": 2, "limit": None}
    assert stats["io"] == {"read_bytes": 15, "write_bytes": 20, "read_operations": 2, "write_operations": 2}
    assert group.oom_kills() == 1


def test_a_limit_without_its_controller():
    with pytest.raises(NotSupported, match="memory"):
        Cgroup(Layout({}, (), "", frozenset()), "/x").create({"memory": {"limit": 1}})
    Cgroup(Layout({}, (), "", frozenset()), "/x").create({})  # nothing asked, nothing missed


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
def test_weight_of_shares(shares, weight):
    assert v2.weight_of_shares(shares) == weight


def test_device_lines():
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "minor": -1, "access": "r"},
    ]
    assert v1.device_lines(rules) == [("devices.deny", "a"), ("devices.allow", "c 1:3 rw"), ("devices.allow", "b 8:* r")]


@pytest.mark.skipif(os.geteuid() != 0 or not Layout.discover().unified, reason="needs root and a v2 hierarchy")
def test_device_program_decides(in_child):
    """Denies everything, then null but for writing, zero for all, and any node may be made."""
    directory = os.path.join(Layout.discover().unified, f"atoll-test-{os.getpid()}")
    os.mkdir(directory)
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"},
    ]

    def opens():
        with open(os.path.join(directory, "cgroup.procs"), "w", encoding="ascii") as procs:
            procs.write("0")
        answers = []
        for path, flags in (
            ("/dev/null", os.O_RDONLY),
            ("/dev/null", os.O_WRONLY),
            ("/dev/null", os.O_RDWR),
            ("/dev/zero", os.O_RDWR),
            ("/dev/full", os.O_RDONLY),
        ):
            try:
                os.close(os.open(path, flags))
                answers.append(True)
            except PermissionError:
                answers.append(False)
        return answers

    try:
        device_program.restrict(directory, rules)
        assert in_child(opens) == [True, False, False, True, False]
    finally:
        os.rmdir(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_real_group(in_child):
    layout = Layout.discover()
    group = Cgroup(layout, f"/atoll-test-{os.getpid()}/inner")
    try:
        group.create({"pids": {"limit": 5}} if layout.has("pids") else {})

        def enter():
            group.enter()
            with open(f"{layout.unified}{group.path}/cgroup.procs", "w", encoding="ascii") as procs:
                procs.write("0")
            with open("/proc/self/cgroup", encoding="ascii") as lines:
                return [line.strip().split(":", 2)[2] for line in lines]

        assert set(in_child(enter)) == {group.path}
        assert group.pids() == []
        assert group.stats()["cpu"]["usage_ns"] >= 0
        child = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
        for _, directory in group.directories():
            with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as procs:
                procs.write(str(child))
        assert not group.remove()
        group.freeze()
        while not group.is_frozen():
            time.sleep(0.001)
        assert not group.kill()  # it takes a moment
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == 9
        assert group.kill()
    finally:
        for gone in (group, Cgroup(layout, os.path.dirname(group.path))):
            end = time.monotonic() + 5
            while not gone.remove():
                assert time.monotonic() < end
                time.sleep(0.002)
    assert not any(os.path.exists(directory) for _, directory in group.directories())
