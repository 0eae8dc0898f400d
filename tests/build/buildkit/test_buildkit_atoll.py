"""`atoll build --secret` and `--ssh`, and the ssh agent through every client."""

import os
import shutil
import subprocess

import pytest

from buildx_harness import context
from engine_harness import ATOLL


@pytest.fixture
def atoll(engine, tmp_path):
    environ = {**os.environ, "ATOLL_HOME": str(engine.instance.home), "DOCKER_CONFIG": str(tmp_path / "config")}

    def run(*words, check=True, **more):
        done = subprocess.run(
            [ATOLL, *words], env={**environ, **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or not done.returncode, (words, done.stdout, done.stderr)
        return done

    return run


@pytest.fixture
def agent(tmp_path):
    """An ssh agent with one key: the environment that leads to it, and the key's fingerprint."""
    if not shutil.which("ssh-agent"):
        pytest.skip("ssh-agent is not installed")
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None
        environ = {"SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
        subprocess.run(["ssh-add", "-q", tmp_path / "key"], env={**os.environ, **environ}, check=True)
        listed = subprocess.run(["ssh-add", "-l"], env={**os.environ, **environ}, capture_output=True, text=True, check=True).stdout
        yield environ, listed.split()[1]
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def with_ssh(tmp_path):
    """A context whose one step asks the agent for its keys, by the host's own ssh-add."""
    program = shutil.which("ssh-add") or ""
    place = context(tmp_path / "c", "FROM busybox\nCOPY root /\nRUN --mount=type=ssh,required /ssh-add -l\n")
    for line in ["=> " + program, *subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines()]:
        path = next((word for word in line.split() if word.startswith("/")), None)
        if path:
            target = place / "root" / ("ssh-add" if path == program else path.lstrip("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return place


def test_an_agent_answers_a_step(atoll, buildx, agent, with_ssh):
    environ, fingerprint = agent
    assert fingerprint in buildx("build", "--ssh", "default", str(with_ssh), **environ).stderr
    assert fingerprint in atoll("build", "--no-cache", "--ssh", "default", str(with_ssh), **environ).stdout
    other = atoll("build", "--no-cache", "--ssh", f"other={environ['SSH_AUTH_SOCK']}", str(with_ssh), check=False)
    assert 'no SSH key "default" forwarded from the client' in other.stderr


def test_secrets_from_variables_and_files(atoll, engine, tmp_path):
    (tmp_path / "s").write_text("sesame")
    dockerfile = "FROM busybox\nRUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B wc -c < /run/secrets/a && echo ${#B} > /b\n"
    place = str(context(tmp_path / "c", dockerfile))
    done = atoll("build", "-t", "built", "--secret", f"id=a,src={tmp_path}/s", "--secret", "id=b,env=OTHER", place, OTHER="1234567")
    assert "\n6\n" in done.stdout
    assert engine.docker("run", "--rm", "built", "cat", "/b").stdout == "7\n"
    assert "Using cache" in atoll("build", "--secret", "id=a,env=HOME", "--secret", "id=b", place, b="x").stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--secret", "id=a,src=/nowhere"), "secret a: there is no file /nowhere"),
        (("--secret", "id=a,env=NOT_SET_AT_ALL"), "the variable NOT_SET_AT_ALL is not set"),
        (("--secret", "src=/etc/passwd"), "write id=NAME,src=FILE or id=NAME,env=VARIABLE"),
        (("--ssh", "x=/nowhere"), "there is no agent's socket /nowhere"),
        (("--ssh", "default"), "SSH_AUTH_SOCK is not set"),
        ((), "RUN --mount=type=secret needs a client's session"),
        (("--secret", "id=b,env=HOME"), "secret a: not found: give it with --secret id=a"),
    ],
)
def test_what_cannot_be_given(atoll, tmp_path, flags, message):
    place = context(tmp_path / "c", "FROM busybox\nRUN --mount=type=secret,id=a,required true\n")
    done = atoll("build", *flags, str(place), check=False, SSH_AUTH_SOCK="")
    assert done.returncode != 0
    assert message in done.stderr
