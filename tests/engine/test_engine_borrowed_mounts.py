"""What a container takes from another, or from an image: shared memory, image mounts, a platform; and what it may not ask for."""

import json
import time

import docker
import pytest


@pytest.fixture(scope="module")
def donors(engine):
    engine.docker("run", "-d", "--name", "shares", "--ipc", "shareable", "busybox", "sh", "-c", "echo shared > /dev/shm/x; sleep 600")
    engine.docker("run", "-d", "--name", "keeps", "busybox", "sleep", "600")


@pytest.fixture(autouse=True)
def _tidy():
    """Containers here outlive their tests."""
    return


def test_shared_memory_of_another_container(engine, donors):
    joined = ("run", "--rm", "--ipc", "container:shares", "busybox", "sh", "-c", "cat /dev/shm/x; echo back > /dev/shm/y")
    assert engine.docker(*joined).stdout == "shared\n"
    assert engine.docker("exec", "shares", "cat", "/dev/shm/y").stdout == "back\n"
    refused = engine.docker("run", "--rm", "--ipc", "container:keeps", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in refused.stderr


def test_image_mounts(engine):
    engine.docker("build", "-q", "-t", "layered", "-", input="FROM busybox\nRUN echo one > /one; rm /etc/group\nRUN echo two > /two\n")
    mounted = ("run", "--rm", "--name", "shown", "--mount", "type=image,source=layered,target=/img")
    assert engine.docker(*mounted, "busybox", "sh", "-c", "cat /img/one /img/two; ls /img/etc").stdout == "one\ntwo\npasswd\n"
    assert "Read-only file system" in engine.docker(*mounted, "busybox", "touch", "/img/x", check=False).stderr
    part = ("run", "--rm", "--mount", "type=image,source=busybox,target=/img,image-subpath=etc", "busybox", "ls", "/img")
    assert engine.docker(*part).stdout == "group\npasswd\n"
    missing = engine.docker("run", "--rm", "--mount", "type=image,source=nosuch,target=/img", "busybox", "true", check=False)
    assert "No such image: nosuch" in missing.stderr
    engine.docker("create", "--name", "holds", "--mount", "type=image,source=layered,target=/img", "busybox", "true")
    point = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "holds").stdout)[0]
    assert (point["Type"], point["Source"], point["Destination"], point["RW"]) == ("image", "layered", "/img", False)
    assert "is using" in engine.docker("rmi", "layered", check=False).stderr
    assert engine.docker("cp", "holds:/img/one", "-", check=False).returncode == 0
    engine.docker("rm", "holds")
    engine.docker("rmi", "layered")


def test_volumes_of_an_image_that_have_no_slash(engine):
    """A VOLUME whose brackets are no JSON names one: Docker mounts it below the root, copies into it and shows it as it was written."""
    engine.docker(
        "build", "-q", "-t", "bare", "-", input="FROM busybox\nRUN mkdir /rel && echo of-image > /rel/file\nVOLUME [/other] rel\n"
    )
    engine.docker("create", "--name", "bare", "bare", "sh", "-c", "cat /rel/file; grep -c -e ' /\\[/other\\] ' -e ' /rel ' /proc/mounts")
    points = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "bare").stdout)
    assert sorted(point["Destination"] for point in points) == ["[/other]", "rel"]
    assert engine.docker("cp", "bare:/rel/file", "-").stdout.count("of-image") == 1  # of the volume: nothing runs
    assert engine.docker("start", "-a", "bare").stdout == "of-image\n2\n"
    engine.docker("rm", "-v", "bare")
    over_file = engine.docker("create", "-v", "/bin/busybox", "busybox", check=False)
    assert "cannot mount volume over existing file, file exists /bin/busybox" in over_file.stderr
    relative = engine.docker("create", "--mount", "type=volume,target=rel", "busybox", check=False)
    assert "invalid mount config for type \"volume\": invalid mount path: 'rel' mount path must be absolute" in relative.stderr
    engine.docker("rmi", "bare")


def test_the_platform_asked_for(engine):
    client = engine.client()
    try:
        with pytest.raises(docker.errors.ImageNotFound) as error:
            client.api._result(
                client.api._post_json(client.api._url("/containers/create"), {"Image": "busybox"}, params={"platform": "linux/s390x"}),
                json=True,
            )
        assert "does not match the specified platform: wanted linux/s390x" in error.value.explanation
        made = client.containers.create("busybox", platform=f"linux/{client.version()['Arch']}")
        made.remove()
    finally:
        client.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cpus", "9999"), "range of CPUs is from 0.01 to"),
        (("--cpuset-cpus", "9999"), "Requested CPUs are not available - requested 9999"),
        (("--log-opt", "foo=bar"), "unknown log opt 'foo' for json-file log driver"),
        (("--log-driver", "local", "--log-opt", "tag=x"), "unknown log opt 'tag' for local log driver"),
        (("--log-opt", "mode=sometimes"), "logging mode not supported: sometimes"),
        (("--log-opt", "max-size=-1"), "max-size"),
        (("--health-cmd", "true", "--health-interval", "1us"), "Interval in Healthcheck cannot be negative or less than 1ms"),
    ],
)
def test_create_refuses(engine, options, message):
    done = engine.docker("create", *options, "busybox", "true", check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_logs_of_none_cannot_be_read(engine):
    engine.docker("run", "--name", "mute", "--log-driver", "none", "busybox", "echo", "x")
    done = engine.docker("logs", "mute", check=False)
    assert (done.returncode, done.stderr) == (1, "Error response from daemon: configured logging driver does not support reading\n")


def test_an_exec_is_told_in_order(engine, donors):
    begun = f"{time.time():.9f}"
    for _ in range(5):
        engine.docker("exec", "keeps", "true")
    shown = engine.docker(
        "events", "--since", begun, "--until", f"{time.time():.9f}", "--filter", "container=keeps", "--format", "{{.Action}}"
    ).stdout
    actions = [line.partition(":")[0] for line in shown.splitlines()][-15:]
    assert actions == ["exec_create", "exec_start", "exec_die"] * 5


def test_a_form_of_a_web_page_creates_nothing(engine):
    client = engine.client()
    try:
        answer = client.api.post(client.api._url("/containers/create"), data='{"Image": "busybox"}', headers={"Content-Type": "text/plain"})
        assert answer.status_code == 400
        assert "must be 'application/json'" in answer.json()["message"]
    finally:
        client.close()
