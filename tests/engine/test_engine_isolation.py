"""Hostile containers and their limits, from the docker command's side: what they reach, how they die, and how that is told."""

import contextlib
import json
import time
from pathlib import Path

import pytest


def state(engine, name):
    return json.loads(engine.docker("inspect", "-f", "{{json .State}}", name).stdout)


def test_limits_seen_from_inside(engine):
    files = "memory/memory.limit_in_bytes memory.max pids/pids.max pids.max cpu/cpu.cfs_quota_us cpu.max cpuset/cpuset.cpus cpuset.cpus"
    script = f"cd /sys/fs/cgroup; cat {files} 2>/dev/null; true"
    limits = ("-m", "64m", "--pids-limit", "30", "--cpus", "0.5", "--cpuset-cpus", "0")
    found = engine.docker("run", "--rm", *limits, "--memory-swap", "64m", "busybox", "sh", "-c", script).stdout.split()
    assert {str(64 << 20), "30", "50000", "0"} <= set(found)


def test_five_ways_to_end_are_told_apart(engine):
    hog = "dd if=/dev/zero of=/dev/null bs=64M count=1"
    memory = ("-m", "16m", "--memory-swap", "16m")
    engine.docker("run", "--name", "oom", *memory, "busybox", "sh", "-c", f"exec {hog}", check=False)
    engine.docker("run", "--name", "oom-child", *memory, "busybox", "sh", "-c", f"{hog}; exit 5", check=False)
    engine.docker("run", "--name", "ulimit", "busybox", "sh", "-c", f"ulimit -v 20000; exec {hog}", check=False)
    engine.docker("run", "-d", "--name", "killed", "busybox", "sleep", "1000")
    engine.docker("kill", "killed")
    engine.docker("run", "-d", "--name", "termed", "--init", "busybox", "sleep", "1000")
    engine.docker("stop", "termed")
    ends = {
        name: (state(engine, name)["ExitCode"], state(engine, name)["OOMKilled"])
        for name in ("oom", "oom-child", "ulimit", "killed", "termed")
    }
    assert ends == {"oom": (137, True), "oom-child": (5, True), "ulimit": (1, False), "killed": (137, False), "termed": (143, False)}


def test_half_a_core(engine):
    """What a loop gets of a core when half a core is its limit, ±10 %; a busy machine may give it less, never more."""
    if not Path("/sys/fs/cgroup/cpuacct").exists():
        pytest.skip("needs cgroup v1")
    engine.docker("run", "-d", "--name", "busy", "--cpus", "0.5", "busybox", "sh", "-c", "while :; do :; done")
    read = ("exec", "busy", "cat", "/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu/cpu.stat")

    def usage():
        words = engine.docker(*read).stdout.split()
        return time.monotonic(), int(words[0]), int(words[2]), int(words[4])

    first = usage()
    time.sleep(1.5)
    elapsed, used, periods, throttled = (after - before for before, after in zip(first, usage(), strict=True))
    assert used / 1e9 <= 0.55 * elapsed + 0.05
    if throttled >= 0.9 * periods:
        assert used / 1e9 >= 0.45 * elapsed - 0.05


def test_a_fork_bomb_and_a_flood_of_orphans(engine):
    bomb = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo all"
    done = engine.docker("run", "--rm", "--pids-limit", "20", "busybox", "sh", "-c", bomb, check=False)
    assert "can't fork" in done.stderr
    flood = "i=0; while [ $i -lt 400 ]; do (true & true); i=$((i+1)); done; sleep 0.1; ps -o stat | grep -c Z"
    assert engine.docker("run", "--rm", "--init", "busybox", "sh", "-c", flood, check=False).stdout == "0\n"


def test_a_container_cannot_kill_or_stop_its_own_first_process(engine):
    engine.docker("run", "-d", "--name", "first", "busybox", "sleep", "1000")
    engine.docker("exec", "first", "sh", "-c", "kill -KILL 1; kill -STOP 1; sleep 0.1")
    assert engine.docker("exec", "first", "cut", "-d ", "-f3", "/proc/1/stat").stdout == "S\n"
    assert state(engine, "first")["Running"] is True


@pytest.mark.parametrize("script", ["trap '' TERM; while :; do sleep 0.1; done", "sleep 1000 & kill -STOP $!; wait"])
def test_one_that_will_not_end_is_ended(engine, script):
    engine.docker("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", script)
    begin = time.monotonic()
    engine.docker("stop", "-t", "1", "stubborn")
    assert 0.9 < time.monotonic() - begin < 8
    assert (state(engine, "stubborn")["ExitCode"], state(engine, "stubborn")["Running"]) == (137, False)


def test_stopped_from_outside_it_can_still_be_removed(engine):
    engine.docker("run", "-d", "--name", "frozen", "busybox", "sleep", "1000")
    engine.docker("kill", "-s", "STOP", "frozen")
    assert state(engine, "frozen")["Status"] == "running"
    engine.docker("rm", "-f", "frozen", timeout=10)
    engine.docker("run", "-d", "--name", "frozen", "busybox", "sleep", "1000")
    engine.docker("pause", "frozen")
    engine.docker("rm", "-f", "frozen", timeout=10)


@pytest.mark.parametrize(
    ("flags", "script"),
    [
        (["--shm-size", "1m"], "dd if=/dev/zero of=/dev/shm/x bs=64k count=64"),
        (["--tmpfs", "/t:size=64k"], "dd if=/dev/zero of=/t/x bs=64k count=4"),
        (["--tmpfs", "/t:nr_inodes=5"], "touch /t/1 /t/2 /t/3 /t/4 /t/5 /t/6"),
        (["--mount", "type=tmpfs,dst=/t,tmpfs-size=64k"], "dd if=/dev/zero of=/t/x bs=64k count=4"),
    ],
)
def test_what_is_full_says_so(engine, flags, script):
    assert "No space left on device" in engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", script, check=False).stderr


@pytest.mark.parametrize("flags", [["--tmpfs", "/t:size=lots"], ["--cpuset-cpus", "5000"], ["--cpuset-cpus", "x"], ["--cpus", "1000"]])
def test_what_cannot_be_is_refused_at_create(engine, flags):
    done = engine.docker("create", *flags, "busybox", "true", check=False)
    assert done.returncode == 1
    assert "Error response from daemon" in done.stderr


def test_nothing_of_ours_listens_where_a_container_could_reach_it(engine):
    """Neither on abstract sockets, which a container on the host's network sees (CVE-2020-15257), nor on any TCP port."""
    sockets = engine.docker("run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix").stdout
    assert [line for line in sockets.splitlines() if " @" in line and ("atoll" in line or engine.instance.id in line)] == []
    keeper = int((engine.instance.run / "keeper.pid").read_text())
    ours = {inode for pid in (engine.process.pid, keeper) for inode in inodes(pid)}
    listening = set()
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        listening |= {row[9] for row in rows if row[3] == "0A"}
    assert ours & listening == set()


def inodes(pid):
    """Of the sockets a process has."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def test_only_what_is_asked_for_is_given(engine):
    """No device but the usual, no capability beyond fourteen, nothing writable in /proc and /sys; --privileged gives it all."""
    script = "ls /dev | wc -l; grep CapEff /proc/self/status;"
    script += "echo 1 > /proc/sys/vm/drop_caches && echo wrote; mount -t tmpfs x /tmp && echo mounted"
    plain = engine.docker("run", "--rm", "busybox", "sh", "-c", script, check=False).stdout.split()
    assert int(plain[0]) < 20
    assert int(plain[2], 16).bit_count() <= 14
    assert "wrote" not in plain
    assert "mounted" not in plain
    assert "mounted" in engine.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script).stdout


def test_cp_into_a_part_of_a_volume_that_was_replaced(engine, tmp_path):
    """The part becomes a symlink while the container does not run: cp stays inside the volume (CVE-2021-25741's way)."""
    (tmp_path / "secret").write_text("the host's")
    engine.docker("run", "--rm", "-v", "cpsub:/v", "busybox", "sh", "-c", "mkdir /v/part /v/other; echo fine > /v/part/file")
    engine.docker("create", "--name", "holder", "--mount", "type=volume,src=cpsub,dst=/m,volume-subpath=part", "busybox", "true")
    assert engine.docker("cp", "holder:/m/file", "-").stdout.count("fine") == 1
    (tmp_path / "in").write_text("new")
    engine.docker("cp", str(tmp_path / "in"), "holder:/m/in")
    for target in (str(tmp_path), f"../../../../../../../..{tmp_path}"):
        engine.docker("run", "--rm", "-v", "cpsub:/v", "busybox", "sh", "-c", f"rm -rf /v/part; ln -s {target} /v/part")
        assert engine.docker("cp", "holder:/m/secret", "-", check=False).returncode != 0
        assert engine.docker("cp", str(tmp_path / "in"), "holder:/m/planted", check=False).returncode != 0
        assert not (tmp_path / "planted").exists()
    engine.docker("rm", "holder")
    engine.docker("volume", "rm", "cpsub")
