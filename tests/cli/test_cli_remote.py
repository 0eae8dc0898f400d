"""Engines elsewhere: by ssh, as docker and atoll reach each other there, and what is said of addresses that lead nowhere."""

import os
import subprocess

import pytest

from engine_harness import ATOLL


@pytest.fixture
def machine(engine, tmp_path):
    """An ssh whose far side is this machine: it runs what it is given, where `docker` is our own command."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "docker").symlink_to(ATOLL)
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
while [ "${{1#docker}}" = "$1" ]; do shift; done
ATOLL_HOME={engine.instance.home} PATH={tmp_path}/far:$PATH; export ATOLL_HOME PATH; unset DOCKER_HOST
exec sh -c "$*"
"""
    )
    ssh.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ATOLL_HOME": str(tmp_path / "h"), "DOCKER_CONFIG": str(tmp_path)}
    environ.pop("DOCKER_HOST", None)

    def run(*words, data=""):
        done = subprocess.run(words, env=environ, input=data, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    run.asked = tmp_path / "asked"
    return run


@pytest.mark.parametrize("command", [ATOLL, "docker"])
def test_by_ssh(machine, command):
    far = (command, "-H", "ssh://me@box")
    done = machine(*far, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", data="typed\n")
    assert (done.returncode, done.stdout) == (0, "typed\nend\n"), done.stderr
    assert machine(*far, "ps", "-q").stdout == ""
    assert machine(*far, "run", "--rm", "busybox", "sh", "-c", "exit 3").returncode == 3
    assert "system dial-stdio" in machine.asked.read_text()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:1", "Cannot connect to the engine at tcp://127.0.0.1:1"),
        ("unix:///nonexistent.sock", "Is it running?"),
        ("http://x", "unable to parse docker host `http://x`"),
        ("tcp://nowhere", "unable to parse docker host"),
        ("ssh://-oProxyCommand=touch", "unable to parse docker host"),
    ],
)
def test_addresses_that_lead_nowhere(machine, address, message):
    done = machine(ATOLL, "-H", address, "ps")
    assert done.returncode == 1
    assert message in done.stderr
