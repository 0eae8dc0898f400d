"""The command against a real engine: what a person types, what is printed, and the exit status."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from engine_harness import ATOLL, Terminal


@pytest.fixture(autouse=True)
def _tidy(atoll):
    yield
    left = atoll("ps", "-aq").stdout.split()
    if left:
        atoll("rm", "-fv", *left)


def test_hello_world_needs_nothing(atoll):
    assert "Hello from Atoll!" in atoll("run", "--rm", "hello-world").stdout


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["no-such-program"], 127),
        (["/etc"], 126),
    ],
)
def test_exit_statuses(atoll, words, status):
    assert atoll("run", "--rm", "busybox", *words, check=False).returncode == status
    assert atoll("ps", "-aq").stdout == ""


def test_125_is_our_own_fault(atoll):
    assert atoll("run", "--bogus", "busybox", check=False).returncode == 125
    assert atoll("run", "--name", "bad name", "busybox", check=False).returncode == 125
    missing = atoll("run", "127.0.0.1:1/none", check=False)
    assert missing.returncode == 125
    assert "Unable to find image '127.0.0.1:1/none:latest' locally" in missing.stderr


def test_streams_are_kept_apart_and_stdin_arrives(atoll):
    done = atoll("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo problem >&2", stdin="typed\n")
    assert done.stdout == "typed\n"
    assert done.stderr == "problem\n"


def test_detached_life(atoll):
    identifier = atoll(
        "run", "-d", "--name", "web", "-e", "A=1", "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo up; sleep 60"
    ).stdout.strip()
    assert len(identifier) == 64
    row = json.loads(atoll("ps", "--format", "json").stdout)
    assert row["Names"] == "web"
    assert row["Status"].startswith("Up")
    assert row["Ports"].startswith("127.0.0.1:")
    assert atoll("port", "web", "80").stdout.startswith("127.0.0.1:")
    assert atoll("exec", "web", "sh", "-c", "echo $A; exit 3", check=False).returncode == 3
    assert atoll("exec", "-e", "B=2", "-w", "/tmp", "web", "sh", "-c", "echo $A$B; pwd").stdout == "12\n/tmp\n"
    assert atoll("logs", "web").stdout == "up\n"
    assert "sleep 60" in atoll("top", "web").stdout
    assert "C /tmp" in atoll("diff", "web").stdout or atoll("diff", "web").stdout == ""
    assert atoll("inspect", "-f", "{{.State.Status}} {{.Name}}", "web").stdout == "running /web\n"
    atoll("pause", "web")
    assert "(Paused)" in atoll("ps").stdout
    atoll("unpause", "web")
    atoll("rename", "web", "site")
    assert atoll("stop", "-t", "0", "site").stdout == "site\n"
    assert atoll("wait", "site").stdout == "137\n"
    assert "Exited (137)" in atoll("ps", "-a").stdout
    atoll("start", "site")
    assert atoll("rm", "site", check=False).returncode == 1
    assert atoll("rm", "-f", "site").stdout == "site\n"


def test_copy_both_ways(atoll, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("data")
    atoll("run", "-d", "--name", "box", "busybox", "sleep", "60")
    atoll("cp", str(tmp_path / "in"), "box:/srv")
    assert atoll("exec", "box", "cat", "/srv/file").stdout == "data"
    atoll("cp", str(tmp_path / "in/file"), "box:/srv/renamed")
    atoll("cp", "box:/srv/renamed", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "data"
    atoll("cp", "box:/srv", str(tmp_path / "tree"))
    assert sorted(os.listdir(tmp_path / "tree")) == ["file", "renamed"]
    assert "no such file" in atoll("cp", str(tmp_path / "absent"), "box:/", check=False).stderr
    assert atoll("cp", "box:/absent", str(tmp_path), check=False).returncode == 1


def test_images_and_archives(atoll, tmp_path):
    atoll("tag", "busybox", "local/copy:1")
    assert "local/copy" in atoll("images").stdout
    archive = str(tmp_path / "a.tar")
    atoll("save", "-o", archive, "local/copy:1")
    for words in (["save", "-o", archive, "local/copy:1"], ["load", "-i", archive], ["push", "local/copy:1"]):
        done = atoll(words[0], "--platform", "linux/s390x", *words[1:], check=False)
        assert done.returncode == 1
        assert "does not match the specified platform: wanted linux/s390x" in done.stderr
    assert "Untagged: local/copy:1" in atoll("rmi", "local/copy:1").stdout
    assert "Loaded image: local/copy:1" in atoll("load", "-i", archive).stdout
    assert atoll("history", "-q", "local/copy:1").stdout.strip()
    assert atoll("rmi", "absent", check=False).returncode == 1
    atoll("run", "--name", "made", "busybox", "sh", "-c", "echo x > /x")
    atoll("commit", "-c", "ENV Y=1", "made", "committed")
    assert atoll("run", "--rm", "committed", "sh", "-c", "cat /x; echo $Y").stdout == "x\n1\n"
    atoll("export", "-o", str(tmp_path / "root.tar"), "made")
    atoll("import", str(tmp_path / "root.tar"), "imported")
    assert atoll("run", "--rm", "imported", "/bin/busybox", "cat", "/x").stdout == "x\n"


def test_networks_and_volumes(atoll):
    atoll("network", "create", "back")
    atoll("volume", "create", "data")
    atoll("run", "-d", "--network", "back", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c", "echo kept > /data/x; sleep 60")
    assert "bytes from" in atoll("run", "--rm", "--network", "back", "busybox", "ping", "-c1", "one").stdout
    assert atoll("run", "--rm", "-v", "data:/d:ro", "busybox", "cat", "/d/x").stdout == "kept\n"
    assert atoll("network", "rm", "back", check=False).returncode == 1
    assert atoll("volume", "rm", "data", check=False).returncode == 1
    atoll("rm", "-f", "one")
    assert atoll("network", "rm", "back").stdout == "back\n"
    assert atoll("volume", "rm", "data").stdout == "data\n"
    assert "bridge" in atoll("network", "ls").stdout


def test_system_words(atoll):
    assert "Atoll Engine" in atoll("version").stdout
    assert "Containers:" in atoll("info").stdout
    assert atoll("info", "-f", "{{.Driver}}").stdout.strip()
    assert atoll("system", "df").stdout.startswith("TYPE")
    assert "Total reclaimed space" in atoll("system", "prune", "-f").stdout
    until = str(int(time.time()) + 1)
    assert "image" in atoll("events", "--since", "1h", "--until", until).stdout


def test_build_from_standard_input(atoll):
    done = atoll("build", "-t", "piped", "-", stdin="FROM busybox\nRUN echo piped > /x\n")
    assert "Successfully tagged piped:latest" in done.stdout
    assert atoll("run", "--rm", "piped", "cat", "/x").stdout == "piped\n"
    assert atoll("build", "-q", "-t", "piped", "-", stdin="FROM busybox\nRUN echo piped > /x\n").stdout.startswith("sha256:")
    wrong = atoll("build", "-", stdin="FROM busybox\nRUN exit 9\n", check=False)
    assert wrong.returncode == 1
    assert "returned a non-zero code: 9" in wrong.stderr


def test_a_terminal_and_the_detach_keys(engine):
    with Terminal([ATOLL, "run", "-it", "--name", "tty", "busybox", "sh"], {**engine.environ, "TERM": "dumb"}) as terminal:
        terminal.expect("/ # ")
        terminal.type("tty; echo sum-$((40+2))\n")
        terminal.expect("/dev/pts/0")
        terminal.expect("sum-42")
        terminal.type("\x10\x11")
        assert terminal.wait() == 0


def test_unknown_things_are_named(atoll):
    assert "No such container: absent" in atoll("logs", "absent", check=False).stderr
    assert "unknown command: atoll bogus" in atoll("bogus", check=False).stderr
    assert "unknown command: atoll cluster strat: did you mean start?" in atoll("cluster", "strat", check=False).stderr
    assert "unknown flag: --fromat: did you mean --format?" in atoll("ps", "--fromat", "x", check=False).stderr
    assert "requires at least 1 argument" in atoll("rm", check=False).stderr
    assert atoll("inspect", "absent", check=False).stdout == "[]\n"


def test_env_prints_what_clients_need(atoll, engine):
    text = atoll("env", "--shell", "bash").stdout
    assert f"export DOCKER_HOST='unix://{engine.instance.engine_socket}'" in text
    script = f"{text}\ndocker ps -q; docker --version; minikube status; minikube strat; kubectl version --client"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=engine.environ, timeout=60, check=False)
    assert "Atoll version" in done.stdout
    assert "Client Version" in done.stdout
    assert "there is no cluster" in done.stderr
    assert "unknown command: minikube strat: did you mean start?" in done.stderr


def test_doctor(atoll):
    assert "cgroups" in atoll("doctor").stdout
    assert all(row["state"] in ("ok", "warning", "problem") for row in json.loads(atoll("doctor", "--format", "json").stdout))


def test_doctor_tells_of_devices_and_settings(tmp_path):
    from atoll.cli.verbs.doctor import _devices

    assert [row for row in _devices(str(tmp_path)) if row[0] == "problem"] == []
    (tmp_path / "cdi").mkdir()
    device = {"name": "0", "containerEdits": {"env": ["A=1"]}}
    (tmp_path / "cdi" / "fine.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "acme.org/npu", "devices": [device]}))
    (tmp_path / "cdi" / "odd.json").write_text("{")
    (tmp_path / "engine.toml").write_text(f'cdi-spec-dirs = ["{tmp_path}/cdi"]')
    found = [row for row in _devices(str(tmp_path)) if row[1] == "devices"]
    assert ("ok", "devices", "by CDI: acme.org/npu=0", "") in found
    assert any(row[0] == "warning" and "odd.json" in row[2] for row in found)
    (tmp_path / "engine.toml").write_text("nonsense = 1")
    assert [row[:2] for row in _devices(str(tmp_path))] == [("problem", "settings")]


def test_completion(atoll, engine):
    assert "complete -o default" in atoll("completion", "bash").stdout
    assert "unknown shell" in atoll("completion", "tcsh", check=False).stderr
    assert atoll("__complete", "netw").stdout == "network\n"
    assert "--publish\n" in atoll("__complete", "run", "--pub").stdout
    assert atoll("__complete", "volume", "in").stdout == "inspect\n"
    atoll("create", "--name", "completed", "busybox")
    assert atoll("__complete", "rm", "comp").stdout == "completed\n"
    assert "busybox:latest\n" in atoll("__complete", "run", "busy").stdout
    assert atoll("__complete", "run", "--network", "bri").stdout == "bridge\n"
    assert atoll("__complete", "run", "--volumes-from", "comp").stdout == "completed\n"
    assert atoll("__complete", "context", "use", "def").stdout == "default\n"
    assert atoll("__complete", "kubectl", "rollout", "und").stdout == "undo\n"
    assert "unpause\n" in atoll("__complete", "compose", "unp").stdout
    script = atoll("completion", "bash").stdout
    asked = f'{script}\nCOMP_WORDS=(atoll ps --fo); COMP_CWORD=2; PATH="{os.path.dirname(ATOLL)}:$PATH"; _atoll; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", asked], capture_output=True, text=True, env=engine.environ, check=True).stdout == "--format\n"


def test_who_is_not_root_is_told_so():
    # Not below pytest's own directory, which is closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o777)
        environ = {**os.environ, "ATOLL_HOME": f"{place}/home"}
        done = _as_nobody(environ)
    assert done.returncode == 125
    assert "containers need root for now: run atoll with sudo" in done.stderr
    assert "Traceback" not in done.stderr


# Nobody who may read the checkout, which may lie in a home that is closed to others.
NOBODY = """
import os, sys
from atoll.kernel import capabilities, prctl
prctl.keep_capabilities()
os.setuid(65534)
read = capabilities.mask(["CAP_DAC_READ_SEARCH"])
capabilities.apply(read, read, 0)
from atoll.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def _as_nobody(environ):
    words = [sys.executable, "-c", NOBODY, "run", "hello-world"]
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=30, check=False)


def test_stats_of_many_at_once(atoll):
    names = [f"used{number}" for number in range(6)]
    for name in names:
        atoll("run", "-d", "--init", "--name", name, "busybox", "sleep", "600")
    begun = time.monotonic()
    rows = atoll("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}").stdout.splitlines()
    assert time.monotonic() - begun < 5  # two readings a second apart for all of them, not for each
    assert sorted(rows) == [f"{name} 2" for name in names]
    assert atoll("stats", "--no-stream", "nosuch", check=False).returncode == 1


@pytest.mark.parametrize("words", [("stats",), ("top", "--watch", "seen")])
def test_a_screen_is_drawn_in_place(engine, atoll, words):
    atoll("run", "-d", "--init", "--name", "seen", "busybox", "sleep", "600")
    environ = {**os.environ, "ATOLL_HOME": str(engine.instance.home)}
    with Terminal([ATOLL, *words], environ) as terminal:
        for _ in range(2):
            terminal.expect("\x1b[H")
            terminal.expect("NAME" if words[0] == "stats" else "PID")
            terminal.expect("seen" if words[0] == "stats" else "sleep 600")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130


def test_reports_of_the_engine_itself(atoll):
    atoll("run", "-d", "--init", "--name", "kept", "-l", "colour=blue", "-v", "named:/v", "busybox", "sleep", "600")
    assert atoll("ps", "--format", '{{.Names}} {{.Label "colour"}}').stdout == "kept blue\n"
    text = atoll("info").stdout
    assert {"Client: Atoll", "Server:", " Swarm: inactive", " Plugins:", "  Log: json-file local none"} <= set(text.splitlines())
    assert "linux/amd64" in atoll("version").stdout or "linux/arm64" in atoll("version").stdout
    heads = [line.split("  ")[0] for line in atoll("system", "df", "-v").stdout.splitlines() if line.isupper() or "  " in line]
    assert {"REPOSITORY", "CONTAINER ID", "VOLUME NAME", "CACHE ID"} <= set(heads)
    assert atoll("top", "kept").stdout.splitlines()[0].startswith("UID                 PID                 PPID")
    line = atoll("events", "--since", "1m", "--until", "0s", "-f", "event=create", "-f", "container=kept").stdout
    assert "(colour=blue, image=busybox, name=kept)" in line


def test_what_is_not_there_says_so(atoll):
    assert "atoll cluster start" in atoll("swarm", "init", check=False).stderr
    assert "plugins are not supported" in atoll("plugin", "ls", check=False).stderr
    done = atoll("rm", "-f", "absent", check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "No such container: absent" in done.stderr
    done = atoll("inspect", "-f", "{{.Nope}}", "busybox", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("atoll: template parsing error: ")
