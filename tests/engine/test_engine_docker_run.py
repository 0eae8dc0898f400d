"""The real docker CLI runs containers: streams, terminals, exit codes, the life of one from create to rm."""

import json
import os
import re
import threading
import time

import pytest


def test_output_streams_and_exit_code(engine):
    done = engine.docker("run", "--name", "both", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert "Exited (3)" in engine.docker("ps", "-a").stdout
    logs = engine.docker("logs", "both")
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("true",), 0, ""),
        (("false",), 1, ""),
        (("nosuch",), 127, "executable file not found in $PATH"),
        (("/no/such",), 127, "no such file or directory"),
        (("/etc/passwd",), 126, "permission denied"),
        (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137, ""),
    ],
)
def test_exit_codes(engine, words, code, message):
    done = engine.docker("run", "--rm", "busybox", *words, check=False)
    assert done.returncode == code
    assert message in done.stderr
    assert engine.docker("ps", "-aq").stdout == ""


def test_an_unknown_image_is_125(engine):
    done = engine.docker("run", "--rm", "localhost:1/nothing", check=False)
    assert done.returncode == 125
    assert "Unable to find image 'localhost:1/nothing:latest' locally" in done.stderr


def test_hello_world_needs_no_registry(engine):
    assert "Hello from Atoll!" in engine.docker("run", "--rm", "hello-world").stdout


def test_stdin_reaches_the_process_and_its_end_too(engine):
    data = os.urandom(300_000).hex()
    done = engine.docker("run", "-i", "--rm", "busybox", "cat", input=data)
    assert done.stdout == data
    assert engine.docker("run", "-i", "--rm", "busybox", "wc", "-c", input="12345").stdout == "5\n"


def test_a_terminal(engine):
    with engine.terminal("run", "-it", "--rm", "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("tty; stty size; echo $TERM\r")
        terminal.expect("/dev/pts/0")
        terminal.expect("xterm")
        terminal.type("exit 4\r")
        assert terminal.wait() == 4


def test_detach_keys_leave_the_container_running(engine):
    with engine.terminal("run", "-it", "--name", "leave", "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("\x10\x11")
        assert terminal.wait() == 0
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "leave").stdout == "running\n"
    with engine.terminal("attach", "leave") as terminal:
        terminal.type("echo back\r")
        terminal.expect("back\r\n")
        terminal.type("exit\r")
        terminal.wait()


def test_exec_on_a_terminal(engine):
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "60")
    with engine.terminal("exec", "-it", "host", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("test -t 0 && echo it is\r")
        terminal.expect("it is\r\n")
        terminal.type("exit 7\r")
        assert terminal.wait() == 7


def test_exec_codes_user_directory_and_environment(engine):
    engine.docker("run", "-d", "--name", "host", "-e", "A=1", "busybox", "sleep", "60")
    assert engine.docker("exec", "host", "sh", "-c", "exit 5", check=False).returncode == 5
    missing = engine.docker("exec", "host", "nosuch", check=False)
    assert missing.returncode == 127
    assert "executable file not found" in missing.stdout + missing.stderr
    done = engine.docker("exec", "-w", "/tmp", "-u", "user", "-e", "B=2", "host", "sh", "-c", "pwd; id; echo $A $B $HOME")
    assert done.stdout == "/tmp\nuid=1000(user) gid=1000(user) groups=1000(user),2000(extra)\n1 2 /home\n"
    assert engine.docker("exec", "-i", "host", "cat", input="in").stdout == "in"
    engine.docker("exec", "-d", "host", "touch", "/tmp/made")
    engine.docker("exec", "host", "sh", "-c", "for i in $(seq 50); do [ -e /tmp/made ] && exit 0; sleep 0.1; done; exit 1")


def test_detached_then_stopped_within_its_grace(engine):
    engine.docker("run", "-d", "--name", "kind", "busybox", "sh", "-c", "trap 'echo bye; exit 9' TERM; while :; do sleep 0.05; done")
    wait_for(lambda: "sleep" in engine.docker("top", "kind").stdout)
    engine.docker("stop", "kind")
    state = json.loads(engine.docker("inspect", "-f", "{{json .State}}", "kind").stdout)
    assert (state["Status"], state["ExitCode"]) == ("exited", 9)
    assert engine.docker("logs", "kind").stdout == "bye\n"


def test_one_that_ignores_term_is_killed_after_its_grace(engine):
    engine.docker("run", "-d", "--name", "deaf", "busybox", "sleep", "60")
    begun = time.monotonic()
    engine.docker("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - begun < 4
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", "deaf").stdout == "137\n"
    engine.docker("start", "deaf")
    engine.docker("kill", "-s", "KILL", "deaf")
    assert "is not running" in engine.docker("kill", "deaf", check=False).stderr


def test_wait_gives_the_code(engine):
    engine.docker("run", "-d", "--name", "soon", "busybox", "sh", "-c", "sleep 0.2; exit 6")
    assert engine.docker("wait", "soon").stdout == "6\n"
    assert engine.docker("wait", "soon").stdout == "6\n"


def test_logs_follow_ends_with_the_container(engine):
    engine.docker("run", "-d", "--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done")
    followed = engine.docker("logs", "-f", "talk")
    assert followed.stdout.splitlines() == [f"line {i}" for i in range(1, 6)]
    assert engine.docker("logs", "--tail", "2", "talk").stdout == "line 4\nline 5\n"
    stamped = engine.docker("logs", "-t", "talk").stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z line \d$", line) for line in stamped)
    third = stamped[2].split()[0]
    assert engine.docker("logs", "--since", third, "talk").stdout.splitlines() == ["line 3", "line 4", "line 5"]
    assert engine.docker("logs", "--until", third, "talk").stdout.splitlines() == ["line 1", "line 2", "line 3"]


def test_create_start_attach_rename_rm(engine):
    made = engine.docker("create", "--name", "first", "-i", "busybox", "cat").stdout.strip()
    assert engine.docker("ps", "-a", "--filter", "status=created", "-q", "--no-trunc").stdout.strip() == made
    engine.docker("rename", "first", "second")
    assert engine.docker("start", "-ai", "second", input="through").stdout == "through"
    assert engine.docker("rm", "second").stdout == "second\n"
    gone = engine.docker("inspect", made, check=False)
    assert "No such" in gone.stderr


def test_a_taken_name(engine):
    first = engine.docker("create", "--name", "taken", "busybox", "true").stdout.strip()
    done = engine.docker("run", "--name", "taken", "busybox", "true", check=False)
    assert done.returncode == 125
    assert f'Conflict. The container name "/taken" is already in use by container "{first}".' in done.stderr


def test_a_running_container_is_removed_by_force_only(engine):
    engine.docker("run", "-d", "--name", "busy", "busybox", "sleep", "60")
    done = engine.docker("rm", "busy", check=False)
    assert done.returncode == 1
    assert "stop the container before removing or force remove" in done.stderr
    engine.docker("rm", "-f", "busy")
    assert engine.docker("rm", "-f", "busy", check=False).returncode == 0
    assert "No such container: busy" in engine.docker("rm", "busy", check=False).stderr


def test_pause_holds_every_process(engine):
    engine.docker("run", "-d", "--name", "still", "busybox", "sleep", "60")
    engine.docker("pause", "still")
    assert "(Paused)" in engine.docker("ps").stdout
    assert "is paused" in engine.docker("exec", "still", "true", check=False).stderr
    engine.docker("unpause", "still")
    engine.docker("exec", "still", "true")


def test_what_a_container_is_given(engine):
    done = engine.docker(
        *(
            "run",
            "--rm",
            "-h",
            "reef",
            "-u",
            "1000:1000",
            "-w",
            "/var/new",
            "-e",
            "X=y",
            "--entrypoint",
            "sh",
            "--add-host",
            "sea:10.1.2.3",
        ),
        *("--memory", "64m", "--pids-limit", "50", "--ulimit", "nofile=100:200", "--tmpfs", "/scratch:size=1m", "--read-only"),
        *("busybox", "-c", "hostname; id -u; pwd; echo $X; grep sea /etc/hosts; ulimit -n; df /scratch | tail -1; touch /x"),
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[:4] == ["reef", "1000", "/var/new", "y"]
    assert lines[4].split() == ["10.1.2.3", "sea"]
    assert lines[5] == "100"
    assert lines[6].split()[1] == "1024"
    assert "Read-only file system" in done.stderr
    assert done.returncode == 1


def test_volumes_binds_and_who_owns_them(engine, tmp_path):
    (tmp_path / "in").write_text("from outside")
    engine.docker(
        "run", "--rm", "-v", f"{tmp_path}:/data", "-v", "named:/keep", "busybox", "sh", "-c", "cp /data/in /keep/; echo back > /data/out"
    )
    assert (tmp_path / "out").read_text() == "back\n"
    assert engine.docker("run", "--rm", "-v", "named:/keep:ro", "busybox", "cat", "/keep/in").stdout == "from outside"
    engine.docker("volume", "rm", "named")
    engine.docker("run", "--rm", "-v", "/etc", "busybox", "grep", "root", "/etc/passwd")  # an anonymous volume is filled from the image
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_a_volumes_subpath_never_leaves_the_volume(engine):
    engine.docker(
        "run", "--rm", "-v", "sub:/v", "busybox", "sh", "-c", "mkdir /v/in; echo kept > /v/in/f; ln -s /etc /v/out; ln -s in /v/way"
    )
    mount = "type=volume,src=sub,dst=/m,volume-subpath="
    assert engine.docker("run", "--rm", "--mount", mount + "way", "busybox", "cat", "/m/f").stdout == "kept\n"
    for subpath in ("out", "nothing"):  # in the volume there is no /etc
        done = engine.docker("run", "--rm", "--mount", mount + subpath, "busybox", "ls", "/m", check=False)
        assert done.returncode == 125
        assert "cannot access path" in done.stderr
    engine.docker("volume", "rm", "sub")


def test_init_buries_the_dead(engine):
    done = engine.docker("run", "--rm", "--init", "busybox", "sh", "-c", "(sleep 0.1 &); exec sleep 0.3; ", check=False)
    assert done.returncode == 0
    assert engine.docker("run", "--rm", "--init", "busybox", "sh", "-c", "echo $$; exit 3", check=False).returncode == 3


def test_restart_policies(engine):
    engine.docker("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 1")
    wait_for(lambda: engine.docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again").stdout == "exited 2\n")
    assert engine.docker("logs", "again").stdout == "run\n" * 3
    engine.docker("run", "-d", "--name", "ever", "--restart", "always", "busybox", "sh", "-c", "echo run; sleep 0.1")
    wait_for(lambda: engine.docker("logs", "ever").stdout.count("run") >= 3)
    engine.docker("stop", "ever")
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "ever").stdout == "exited\n"


def test_health(engine):
    engine.docker(
        *("run", "-d", "--name", "well", "--health-cmd", "test -e /tmp/ok", "--health-interval", "100ms", "--health-retries", "2"),
        *("busybox", "sleep", "60"),
    )
    assert engine.docker("inspect", "-f", "{{.State.Health.Status}}", "well").stdout == "starting\n"
    wait_for(lambda: "(unhealthy)" in engine.docker("ps").stdout)
    engine.docker("exec", "well", "touch", "/tmp/ok")
    wait_for(lambda: "(healthy)" in engine.docker("ps").stdout)
    assert len(json.loads(engine.docker("inspect", "-f", "{{json .State.Health.Log}}", "well").stdout)) <= 5


def test_published_ports(engine):
    engine.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo hi > /tmp/i; httpd -f -p 80 -h /tmp")
    port = engine.docker("port", "web", "80/tcp").stdout.strip().rpartition(":")[2]
    wait_for(lambda: _get(int(port)) == b"hi\n")
    taken = engine.docker("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert taken.returncode == 125
    assert "port is already allocated by container web" in taken.stderr


def _get(port):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/i", timeout=2) as answer:
            return answer.read()
    except (urllib.error.URLError, ConnectionError):
        return b""


def test_events_of_a_life(engine):
    begun = str(time.time() - 0.001)
    engine.docker("run", "--name", "told", "--label", "who=me", "busybox", "true")
    engine.docker("rm", "told")
    shown = engine.docker(
        "events", "--since", begun, "--until", str(time.time() + 0.01), "--filter", "container=told", "--format", "{{json .}}"
    )
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [event["Action"] for event in events] == ["create", "attach", "start", "die", "destroy"]
    assert events[0]["Actor"]["Attributes"]["who"] == "me"
    assert events[3]["Actor"]["Attributes"]["exitCode"] == "0"


def test_events_as_they_happen(engine, client):
    seen = []
    stream = client.events(decode=True, filters={"event": "start"})
    reader = threading.Thread(target=lambda: seen.append(next(iter(stream))))
    reader.start()
    time.sleep(0.2)
    engine.docker("run", "--rm", "busybox", "true")
    reader.join(10)
    stream.close()
    assert seen[0]["Type"] == "container"


def test_two_containers_find_each_other_by_name(engine):
    engine.docker("network", "create", "lagoon")
    try:
        engine.docker("run", "-d", "--name", "one", "--network", "lagoon", "busybox", "sleep", "60")
        found = engine.docker("run", "--rm", "--network", "lagoon", "busybox", "ping", "-c", "1", "-W", "2", "one")
        assert "1 packets received" in found.stdout
        assert "has active endpoints" in engine.docker("network", "rm", "lagoon", check=False).stderr
        engine.docker("rm", "-f", "one")
    finally:
        engine.docker("network", "rm", "lagoon")


def test_sharing_the_namespaces_of_another(engine):
    engine.docker("run", "-d", "--name", "owner", "-h", "owner", "busybox", "sleep", "60")
    done = engine.docker("run", "--rm", "--network", "container:owner", "--pid", "container:owner", "busybox", "sh", "-c", "hostname; ps")
    assert done.stdout.startswith("owner\n")
    assert "sleep 60" in done.stdout
    assert engine.docker("run", "--rm", "--network", "host", "busybox", "hostname").stdout.strip() == os.uname().nodename
    assert "eth0" not in engine.docker("run", "--rm", "--network", "none", "busybox", "ip", "link").stdout


def test_update_and_stats(engine):
    engine.docker("run", "-d", "--name", "small", "--memory", "32m", "busybox", "sleep", "60")
    assert "32MiB" in engine.docker("stats", "--no-stream", "small").stdout
    engine.docker("update", "--memory", "48m", "--memory-swap", "96m", "small")
    assert "48MiB" in engine.docker("stats", "--no-stream", "small").stdout


def test_out_of_memory_is_named(engine):
    engine.docker("run", "--name", "greedy", "--memory", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero", check=False)
    state = json.loads(engine.docker("inspect", "-f", "{{json .State}}", "greedy").stdout)
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def wait_for(truth, seconds=15):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


@pytest.mark.parametrize("words", [("--tmpfs", "/x"), ("--mount", "type=tmpfs,target=/x")])
def test_a_tmpfs_without_options(engine, words):
    """Whoever the user is: where the image has no such directory, the mode is the kernel's own, 1777."""
    script = "grep -c '^tmpfs /x tmpfs rw,nosuid,nodev,noexec' /proc/mounts && touch /x/file && stat -c %a /x"
    assert engine.docker("run", "--rm", "--user", "1000", *words, "busybox", "sh", "-c", script).stdout.split() == ["1", "1777"]


def test_a_disabled_network_is_none(client):
    container = client.containers.run("busybox", ["ls", "/sys/class/net"], network_disabled=True, remove=True)
    assert container.split() == [b"lo"]
