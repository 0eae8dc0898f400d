"""The daemon is killed and started again: containers go on, and what is told of them stays true."""

import json
import os
import signal
import subprocess
import time

from engine_harness import EngineDaemon


def inspect(engine, name, field):
    return engine.docker("inspect", "-f", f"{{{{json .{field}}}}}", name).stdout.strip()


def test_containers_outlive_the_daemon(engine):
    script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 5"
    engine.docker("run", "-d", "--name", "on", "-p", "127.0.0.1::80", "busybox", "sh", "-c", script)
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.3; echo last words; exit 6")
    engine.docker("run", "-d", "--name", "gone", "--rm", "busybox", "sleep", "0.3")
    before = json.loads(inspect(engine, "on", "NetworkSettings.Networks.bridge"))
    ports = engine.docker("port", "on").stdout
    pid = inspect(engine, "on", "State.Pid")
    engine.kill()
    time.sleep(0.6)
    engine.start()
    assert inspect(engine, "on", "State.Pid") == pid
    assert json.loads(inspect(engine, "on", "NetworkSettings.Networks.bridge")) == before
    assert engine.docker("port", "on").stdout == ports
    assert (inspect(engine, "ends", "State.Status"), inspect(engine, "ends", "State.ExitCode")) == ('"exited"', "6")
    assert engine.docker("logs", "ends").stdout == "last words\n"
    assert engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["ends", "on"]
    engine.docker("exec", "on", "touch", "/stop")
    assert engine.docker("wait", "on").stdout == "5\n"
    lines = engine.docker("logs", "on").stdout.split()
    assert lines == [str(i) for i in range(1, len(lines) + 1)]  # none was lost while nobody served


def test_restart_policies_resume(engine):
    engine.docker("run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", "sleep 0.2")
    engine.docker("run", "-d", "--name", "unless", "--restart", "unless-stopped", "busybox", "sleep", "60")
    engine.docker("stop", "-t", "0", "unless")
    engine.kill()
    time.sleep(0.5)
    engine.start()
    assert inspect(engine, "unless", "State.Status") == '"exited"'
    end = time.monotonic() + 10
    while inspect(engine, "always", "State.Status") not in {'"running"', '"restarting"'}:
        assert time.monotonic() < end


def test_a_graceful_end_keeps_containers_too(engine):
    engine.docker("run", "-d", "--name", "stay", "busybox", "sleep", "60")
    engine.stop()
    engine.start()
    assert inspect(engine, "stay", "State.Status") == '"running"'
    assert engine.docker("stop", "-t", "0", "stay").returncode == 0


def test_a_second_daemon_names_the_first(engine):
    second = EngineDaemon(engine.instance)
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "atoll.node.daemon"], env=second.environ, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert str(engine.process.pid) in done.stderr
    assert "Traceback" not in done.stderr
    engine.docker("ps")


def test_half_done_acts_are_undone_or_finished(engine):
    """A directory that no row names (creating, removing), and a container that runs though its row says it never did (starting)."""
    engine.docker("create", "--name", "half-made", "busybox", "true")
    engine.docker("run", "-d", "--name", "half-started", "busybox", "sleep", "1000")
    pid = inspect(engine, "half-started", "State.Pid")
    engine.kill()
    import sqlite3

    with sqlite3.connect(engine.instance.database) as database:
        database.execute("DELETE FROM containers WHERE name = 'half-made'")
        row = json.loads(database.execute("SELECT record FROM containers WHERE name = 'half-started'").fetchone()[0])
        row |= {"status": "created", "pid": 0, "started_ns": 0}
        database.execute("UPDATE containers SET record = ? WHERE name = 'half-started'", (json.dumps(row).encode(),))
    database.close()
    engine.start()
    assert engine.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout == "half-started running\n"
    assert inspect(engine, "half-started", "State.Pid") == pid
    assert json.loads(inspect(engine, "half-started", "State.StartedAt")) > "2020"
    assert [path.name for path in engine.instance.containers.iterdir()] == [json.loads(inspect(engine, "half-started", "Id"))]
    engine.docker("rm", "-f", "half-started")


def kill_keeper(engine):
    path = engine.instance.run / "keeper.pid"
    keeper = int(path.read_text())
    os.kill(keeper, signal.SIGKILL)
    end = time.monotonic() + 10
    while int(path.read_text()) == keeper:
        assert time.monotonic() < end, "no keeper follows"
        time.sleep(0.01)


def test_the_keeper_is_killed(engine):
    script = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
    engine.docker("run", "-d", "--name", "on", "busybox", "sh", "-c", script)
    engine.docker("run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", "sleep 0.5")
    pid = inspect(engine, "on", "State.Pid")
    with subprocess.Popen(["docker", "logs", "-f", "on"], env=engine.environ, stdout=subprocess.PIPE, text=True) as following:
        waiting = subprocess.Popen(["docker", "wait", "on"], env=engine.environ, stdout=subprocess.PIPE, text=True)
        time.sleep(0.2)
        kill_keeper(engine)
        assert engine.docker("ps", "--format", "{{.Names}}", "--filter", "name=on").stdout == "on\n"
        assert engine.docker("exec", "on", "echo", "inside").stdout == "inside\n"
        assert inspect(engine, "on", "State.Pid") == pid
        engine.docker("stop", "on")
        assert waiting.communicate(timeout=10)[0] == "7\n"
        lines = following.communicate(timeout=10)[0].split()
    assert lines == engine.docker("logs", "on").stdout.split() == [str(number) for number in range(1, len(lines) + 1)]
    end = time.monotonic() + 10
    while int(inspect(engine, "again", "RestartCount")) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_both_are_killed(engine):
    engine.docker("run", "-d", "--name", "on", "busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done")
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.3; echo last words; exit 6")
    pid = inspect(engine, "on", "State.Pid")
    engine.kill()
    kill_keeper(engine)
    time.sleep(0.4)
    engine.start()
    assert inspect(engine, "on", "State.Pid") == pid
    assert inspect(engine, "ends", "State.ExitCode") == "6"
    assert engine.docker("logs", "ends").stdout == "last words\n"
    engine.docker("stop", "on")
    assert engine.docker("wait", "on").stdout == "7\n"


def test_keeper_and_holder_are_killed(engine):
    """Nobody is left who could know: that is what is told."""
    engine.docker("run", "-d", "--name", "lost", "busybox", "sleep", "60")
    engine.docker("run", "-d", "--name", "back", "--restart", "always", "busybox", "sleep", "60")
    first = inspect(engine, "back", "State.Pid")
    keeper = int((engine.instance.run / "keeper.pid").read_text())
    holder = int(inspect_parent(keeper))
    os.kill(holder, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    os.kill(holder, signal.SIGKILL)
    end = time.monotonic() + 15
    while inspect(engine, "lost", "State.Status") != '"exited"' or inspect(engine, "back", "State.Pid") in {first, "0"}:
        assert time.monotonic() < end, "the engine did not see it"
        time.sleep(0.1)
    assert inspect(engine, "lost", "State.ExitCode") == "255"
    assert "exit code is not known" in inspect(engine, "lost", "State.Error")
    assert inspect(engine, "back", "State.Status") == '"running"'
    engine.docker("exec", "back", "true")


def inspect_parent(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(line.split()[1] for line in file if line.startswith("PPid:"))
