"""testcontainers and python-on-whales from PyPI, unmodified, as their users use them; and a client inside a container, as reapers are."""

import io
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
import warnings

import pytest
from python_on_whales import DockerClient

from engine_harness import busybox_tar, docker_files

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its own wait decorator, at import
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.image import DockerImage
    from testcontainers.core.network import Network
    from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy


@pytest.fixture
def _here(engine, monkeypatch):
    """testcontainers speaks with our engine; its reaper's image would have to come from a registry."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


@pytest.mark.usefixtures("_here")
def test_testcontainers_waits_publishes_and_executes():
    web = DockerContainer("busybox", init=True).with_command("sh -c 'echo ready; exec httpd -f -p 80 -h /'").with_exposed_ports(80)
    with web.with_env("DEPTH", "3").waiting_for(LogMessageWaitStrategy("ready")) as container:
        assert container.exec(["sh", "-c", "echo $DEPTH"]).output == b"3\n"
        assert container.get_logs() == (b"ready\n", b"")
        address = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(80)}/etc/passwd"
        with urllib.request.urlopen(address, timeout=5) as answer:
            assert answer.read().startswith(b"root:")
    plain = DockerContainer("busybox", init=True).with_command("httpd -f -p 80 -h /").with_exposed_ports(80)
    with plain.waiting_for(HttpWaitStrategy(80, "/etc/group")):
        pass


@pytest.mark.usefixtures("_here")
def test_testcontainers_networks_volumes_and_images(tmp_path):
    (tmp_path / "Dockerfile").write_text('FROM busybox\nCMD ["httpd", "-f", "-p", "80", "-h", "/"]\n')
    with Network() as network, DockerImage(path=str(tmp_path), tag="tc:1") as image:
        served = DockerContainer(str(image), init=True).with_network(network).with_network_aliases("alpha")
        asking = DockerContainer("busybox", init=True).with_command("sleep 100").with_network(network)
        with served, asking.with_volume_mapping(str(tmp_path), "/given", "ro") as asker:
            assert asker.exec("wget -q -O - http://alpha/etc/group").output.startswith(b"root:")
            assert asker.exec("ls /given").output == b"Dockerfile\n"


def test_python_on_whales(engine, tmp_path):
    docker = DockerClient(host=engine.url)
    assert docker.info().server_version
    assert docker.run("busybox", ["echo", "hi"], remove=True) == "hi"
    pieces = list(docker.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stream=True, remove=True))
    assert sorted(pieces) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    with docker.run("busybox", ["sleep", "100"], detach=True, init=True, name="whale", labels={"colour": "blue"}, remove=True) as container:
        assert container.state.running
        assert container.config.labels == {"colour": "blue"}
        assert docker.container.stats()[0].container_name == "whale"
        assert container.execute(["cat", "/etc/group"]).startswith("root:")
        docker.copy((container, "/etc/passwd"), tmp_path / "passwd")
        assert (tmp_path / "passwd").read_text().startswith("root:")
        network = docker.network.create("whales", subnet="10.215.0.0/24")
        docker.network.connect(network, container)
        network.reload()
        assert [seat.name for seat in network.containers.values()] == ["whale"]
        docker.network.disconnect(network, container)
        network.remove()
        container.pause()
        container.reload()
        assert container.state.paused
        container.unpause()
    volume = docker.volume.create("whaling")
    assert volume.created_at.tzinfo is not None
    volume.remove()


REAPER = """#!/bin/sh
echo "$(date) Started!"
nc -l -p 8080 -e /session
sleep "${RYUK_RECONNECTION_TIMEOUT%s}"
docker ps -aq --filter "$(cat /filter)" | xargs -r docker rm -fv
docker network ls -q --filter "$(cat /filter)" | xargs -r docker network rm
"""
SESSION = """#!/bin/sh
while read -r line; do echo "$line" | tr -d '\\r' > /filter; echo ACK; done
"""
TESTS = """
import sys, warnings
warnings.simplefilter("ignore")
from testcontainers.core.container import DockerContainer
container = DockerContainer("busybox", init=True).with_command("sleep 600").start()
print(container.get_wrapped_container().id, flush=True)
sys.stdin.read()
"""


def test_testcontainers_reaper_cleans_up_after_tests_that_were_killed(engine):
    """The reaper's image is in a registry; this one speaks its protocol: a filter a line, ACK, and the end when the tests are gone."""
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as base, io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for member in base:
                tar.addfile(member, base.extractfile(member) if member.isreg() else None)
            for name, data in (("reaper", REAPER), ("session", SESSION)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o755
                tar.addfile(entry, io.BytesIO(data.encode()))
            docker, *libraries = docker_files()
            tar.add(os.path.realpath(docker), "bin/docker")
            for path in libraries:
                tar.add(os.path.realpath(path), path.removeprefix("/"))
        engine.docker("import", "-c", 'CMD ["/reaper"]', "-", "reaper:1", input=buffer.getvalue())
    environ = {**engine.environ, "RYUK_CONTAINER_IMAGE": "reaper:1", "RYUK_RECONNECTION_TIMEOUT": "0s"}
    with subprocess.Popen([sys.executable, "-c", TESTS], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tests:
        made = tests.stdout.readline().strip()
        assert len(made) == 64
        assert len(engine.docker("ps", "-q").stdout.split()) == 2
        tests.kill()
    end = time.monotonic() + 20
    while engine.docker("ps", "-aq").stdout:  # what the tests made, and the reaper after it
        assert time.monotonic() < end, engine.docker("ps", "-a").stdout
        time.sleep(0.1)
    engine.docker("rmi", "reaper:1")


def test_a_client_inside_a_container(engine):
    docker, *libraries = docker_files()
    paths = {str(engine.instance.engine_socket): "/var/run/docker.sock", docker: "/bin/docker", **{path: path for path in libraries}}
    mounts = [word for path, target in paths.items() for word in ("-v", f"{path}:{target}")]
    seen = engine.docker("run", "--rm", "--name", "reaper", *mounts, "busybox", "docker", "ps", "--format", "{{.Names}}").stdout
    assert seen == "reaper\n"
