"""What goes on when engine or keeper are killed with -9: health checks, restarts and their count; and how sessions end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from engine_harness import ATOLL


def inspect(engine, name, field):
    return json.loads(engine.docker("inspect", "-f", f"{{{{json .{field}}}}}", name).stdout)


def kill_keeper(engine):
    path = engine.instance.run / "keeper.pid"
    keeper = int(path.read_text())
    os.kill(keeper, signal.SIGKILL)
    until(lambda: int(path.read_text()) != keeper, "no keeper follows")


def kill_engine(engine):
    engine.kill()
    engine.start()


def until(truth, what, seconds=15):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_health_checks_go_on(engine):
    check = ("--health-cmd", "test -e /well", "--health-interval", "100ms", "--health-retries", "2")
    engine.docker("run", "-d", "--name", "hh", *check, "busybox", "sleep", "60")
    until(lambda: inspect(engine, "hh", "State.Health.Status") == "unhealthy", "a failing check goes unseen")
    kill_keeper(engine)
    engine.docker("exec", "hh", "touch", "/well")
    until(lambda: inspect(engine, "hh", "State.Health.Status") == "healthy", "no checks after the keeper's death")
    results = inspect(engine, "hh", "State.Health.Log")
    assert {result["ExitCode"] for result in results} <= {0, 1}  # none says what the keeper's death has to do with health
    kill_engine(engine)
    until(lambda: inspect(engine, "hh", "State.Health.Status") == "healthy", "no checks after the engine's death")
    engine.docker("exec", "hh", "rm", "/well")
    until(lambda: inspect(engine, "hh", "State.Health.Status") == "unhealthy", "no checks after the engine's death")


def test_restarts_are_counted_on(engine):
    engine.docker("run", "-d", "--name", "rr", "--restart", "on-failure:4", "busybox", "sh", "-c", "echo run; sleep 0.15; exit 3")
    until(lambda: inspect(engine, "rr", "RestartCount") >= 1, "no restart")
    kill_keeper(engine)
    until(lambda: inspect(engine, "rr", "RestartCount") >= 2, "no restart after the keeper's death")
    kill_engine(engine)
    assert inspect(engine, "rr", "RestartCount") >= 2
    until(lambda: inspect(engine, "rr", "State.Status") == "exited" and inspect(engine, "rr", "RestartCount") == 4, "restarts do not end")
    assert inspect(engine, "rr", "State.ExitCode") == 3
    assert engine.docker("logs", "rr").stdout == "run\n" * 5


def test_sessions_say_why_they_end(engine):
    engine.docker("run", "-d", "-i", "--name", "ss", "busybox", "cat")
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": engine.environ, "text": True}
    inside = subprocess.Popen(["docker", "exec", "-i", "ss", "cat"], **piped)
    attached = subprocess.Popen(["docker", "attach", "ss"], **piped)
    inside.stdin.write("hello\n")
    inside.stdin.flush()
    assert inside.stdout.readline() == "hello\n"
    time.sleep(0.1)
    kill_keeper(engine)
    _, said = inside.communicate(timeout=10)
    assert "session was lost" in said
    assert inside.returncode == 137
    until(lambda: attached.poll() is not None or not attached.stdin.closed, "the attachment hangs")
    assert inspect(engine, "ss", "State.Running")
    engine.docker("kill", "ss")
    _, said = attached.communicate(timeout=10)
    assert "session was lost" in said


def test_starting_in_the_foreground_survives(engine):
    """The keeper dies while containers start: each still runs once, and its output comes."""
    commands = [
        subprocess.Popen(
            ["docker", "run", "--rm", "busybox", "sh", "-c", f"echo {number}; exit {number}"],
            env=engine.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for _ in range(3):
        time.sleep(0.05)
        kill_keeper(engine)
    for number, command in enumerate(commands):
        _, said = command.communicate(timeout=20)
        assert command.returncode == number, said
    until(lambda: not engine.docker("ps", "-aq").stdout, "containers of --rm stay")


def test_a_restart_renews_the_keeper_and_containers_run_on(engine):
    """By an engine of other code, and then by `atoll engine restart` with that of now."""
    engine.docker(
        "run", "-d", "--name", "on", "busybox", "sh", "-c", "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
    )
    keeper, pid = int((engine.instance.run / "keeper.pid").read_text()), inspect(engine, "on", "State.Pid")
    script = (
        "import atoll.runtime.spawn as spawn, atoll.node.daemon as daemon, sys; spawn.own_build.__code__ = (lambda: 'newer').__code__;"
        "sys.argv[0] = 'daemon'; sys.exit(daemon.main())"
    )
    engine.stop()
    engine.process = subprocess.Popen([sys.executable, "-c", script], env=engine.environ)
    until(engine._answers, "the newer engine does not come")
    assert int((engine.instance.run / "keeper.pid").read_text()) != keeper
    assert inspect(engine, "on", "State.Pid") == pid
    process, engine.process = engine.process, None
    try:
        done = subprocess.run([ATOLL, "engine", "restart"], env=engine.environ, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        assert f"unix://{engine.instance.engine_socket}" in done.stdout
        assert inspect(engine, "on", "State.Pid") == pid
        engine.docker("stop", "on")
        assert inspect(engine, "on", "State.ExitCode") == 7
        lines = engine.docker("logs", "on").stdout.split()
        assert lines == [str(number) for number in range(1, len(lines) + 1)]
    finally:
        subprocess.run([ATOLL, "engine", "stop", "--keep-containers"], env=engine.environ, capture_output=True, timeout=30, check=True)
        process.wait(10)
        engine.start()
