"""`--gpus`, `--device vendor/class=name` and `--runtime` by the docker command, with CDI files of the tests' own."""

from __future__ import annotations

import json
import shutil
import sys
import time

import pytest

from engine_harness import EngineDaemon

# As vendors' hooks do: from the state to the config to the root.
HOOK = """
import json, os, sys
state = json.load(sys.stdin)
with open(os.path.join(state["bundle"], "config.json")) as file:
    root = os.path.join(state["bundle"], json.load(file)["root"]["path"])
with open(os.path.join(root, "etc/by-hook"), "w") as file:
    print("made by a hook", file=file)
"""
SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "containerEdits": {
        "env": ["VISIBLE=yes"],
        "hooks": [{"hookName": "createContainer", "path": sys.executable, "args": ["python", "-I", "-S", "-c", HOOK]}],
    },
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}]}},
        {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1", "hostPath": "/dev/zero"}]}},
    ],
}


@pytest.fixture(scope="module")
def engine(module_instance):
    module_instance.home.joinpath("cdi").mkdir()
    module_instance.home.joinpath("cdi", "vendor.json").write_text(json.dumps(SPEC))
    module_instance.home.joinpath("engine.toml").write_text(f'cdi-spec-dirs = ["{module_instance.home}/cdi"]\n')
    daemon = EngineDaemon(module_instance)
    try:
        daemon.start()
        daemon.make_busybox()
        yield daemon
    finally:
        daemon.destroy()


@pytest.mark.parametrize(
    ("flags", "nodes"),
    [
        (["--gpus", "all"], ["gpu0", "gpu1"]),
        (["--gpus", "1"], ["gpu0"]),
        (["--gpus", "device=1"], ["gpu1"]),
        (["--device", "nvidia.com/gpu=1"], ["gpu1"]),
        (["--device", "nvidia.com/gpu=0", "--device", "/dev/null:/dev/gpu-null"], ["gpu-null", "gpu0"]),
    ],
)
def test_devices_are_given(engine, flags, nodes):
    script = "ls /dev | grep gpu; echo $VISIBLE; cat /etc/by-hook; for d in /dev/gpu[01]; do head -c 3 $d | wc -c; done"
    lines = engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", script).stdout.splitlines()
    found = [node for node in nodes if node != "gpu-null"]
    assert lines == [*nodes, "yes", "made by a hook", *["3"] * len(found)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpus", "3"], "3 devices of nvidia.com/gpu were asked for, but there are 2: 0, 1"),
        (["--gpus", "device=7"], "unresolvable CDI devices nvidia.com/gpu=7: there is nvidia.com/gpu=0, nvidia.com/gpu=1"),
        (["--device", "acme.com/npu=0"], "unresolvable CDI devices acme.com/npu=0"),
        (["--gpus", "driver=acme,count=1"], 'could not select device driver "acme" with capabilities: [[gpu]]'),
    ],
)
def test_devices_that_are_not_there(engine, flags, message):
    done = engine.docker("run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert message in done.stderr


def test_info_lists_devices_and_runtimes(engine, client):
    info = client.info()
    assert info["CDISpecDirs"] == [f"{engine.instance.home}/cdi"]
    assert {"Source": "cdi", "ID": "nvidia.com/gpu=0"} in info["DiscoveredDevices"]
    assert {"atoll"} | {name for name in ("runc", "crun") if shutil.which(name)} == set(info["Runtimes"])
    assert "runc" in engine.docker("info", "--format", "{{json .Runtimes}}").stdout or not shutil.which("runc")


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_another_runtime(engine, runtime):
    if shutil.which(runtime) is None:
        pytest.skip(f"needs {runtime} (a Debian package)")
    done = engine.docker(
        *("run", "--name", "other", "--runtime", runtime, "-v", "data:/data", "-w", "/data", "-u", "user", "-m", "64m", "-i"),
        *("--gpus", "1", "busybox", "sh", "-c", "id -u; pwd; cat; ls /dev/gpu0; cat /etc/by-hook; cat /etc/hostname | wc -l; exit 3"),
        check=False,
        input="from stdin\n",
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        3,
        ["1000", "/data", "from stdin", "/dev/gpu0", "made by a hook", "1"],
    ), done.stderr
    assert engine.docker("inspect", "-f", "{{.HostConfig.Runtime}} {{.State.ExitCode}}", "other").stdout == f"{runtime} 3\n"
    assert engine.docker("logs", "other").stdout.startswith("1000\n/data\n")
    engine.docker("rm", "-v", "other")
    engine.docker("run", "-d", "--name", "long", "--runtime", runtime, "--init", "busybox", "sleep", "1000")
    assert engine.docker("exec", "-u", "user", "long", "id", "-un").stdout == "user\n"
    assert "sleep 1000" in engine.docker("top", "long").stdout
    engine.docker("restart", "-t", "0", "long")
    assert engine.docker("exec", "long", "hostname").stdout.strip()
    engine.docker("stop", "-t", "1", "long")
    states = engine.instance.run / "oci" / runtime
    for _ in range(100):  # who waits for the end is told before the runtime has forgotten it
        if not list(states.iterdir()):
            break
        time.sleep(0.05)
    assert list(states.iterdir()) == []
    failed = engine.docker("run", "--rm", "--runtime", runtime, "busybox", "nosuch", check=False)
    assert failed.returncode == 127
    assert "OCI runtime create failed" in failed.stderr


def test_a_runtime_nobody_has(engine):
    done = engine.docker("run", "--rm", "--runtime", "nosuch", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "unknown or invalid runtime name: nosuch" in done.stderr


def test_settings_of_runtimes(engine, tmp_path):
    from atoll.engine import runtimes
    from atoll.engine.settings import Settings
    from atoll.errors import InvalidInput

    path = tmp_path / "engine.toml"
    path.write_text('runtimes = {mine = "/opt/mine"}')
    found = runtimes.find(Settings.load(path), "mine")
    assert found is not None
    assert (found.name, str(found.path)) == ("mine", "/opt/mine")
    for wrong in ('runtimes = {mine = "relative"}', 'runtimes = {atoll = "/x"}', 'cdi-spec-dirs = "x"', "cdi-spec-dirs = [1]"):
        path.write_text(wrong)
        with pytest.raises(InvalidInput, match=r"runtimes|cdi-spec-dirs"):
            Settings.load(path)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_another_runtime_makes_the_same_of_the_same_flags(engine, runtime):
    if shutil.which(runtime) is None:
        pytest.skip(f"needs {runtime} (a Debian package)")
    cases = [
        (["--privileged"], "grep CapEff /proc/self/status; touch /proc/sys/kernel/domainname && echo rw"),
        (["--read-only", "--tmpfs", "/t:size=1m", "--cap-drop", "ALL"], "touch /x 2>&1; touch /t/x; grep CapEff /proc/self/status"),
        (["--ipc", "host", "--pid", "host", "--network", "host"], "for n in ipc pid net; do readlink /proc/self/ns/$n; done; id"),
        (["--sysctl", "net.core.somaxconn=999", "--ulimit", "nofile=100:200"], "cat /proc/sys/net/core/somaxconn; ulimit -n; ulimit -Hn"),
        (
            ["--hostname", "hh", "--domainname", "dd", "--add-host", "a:1.2.3.4", "-t"],
            "tty; hostname; cat /proc/sys/kernel/domainname; grep -c 1.2.3.4 /etc/hosts",
        ),
        (
            ["--device", "/dev/zero:/dev/mine:r", "-v", "/tmp:/host:ro", "-e", "HOME=", "-u", "user"],
            "head -c 2 /dev/mine | wc -c; touch /host/x 2>&1; echo $HOME; id",
        ),
    ]
    for flags, script in cases:
        answers = [
            (done.returncode, done.stdout)
            for name in ("atoll", runtime)
            if (done := engine.docker("run", "--rm", "--runtime", name, *flags, "busybox", "sh", "-c", script, check=False))
        ]
        assert answers[0] == answers[1], flags
        assert answers[0][1], flags
