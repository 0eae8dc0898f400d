"""testcontainers and python-on-whales from PyPI, unmodified, as their users use them; and a client inside a container, as reapers are."""

import shutil
import urllib.request
import warnings

import pytest
from python_on_whales import DockerClient

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


def test_a_client_inside_a_container(engine):
    mounts = ["-v", f"{engine.instance.engine_socket}:/var/run/docker.sock", "-v", f"{shutil.which('docker')}:/bin/docker:ro"]
    seen = engine.docker("run", "--rm", "--name", "reaper", *mounts, "busybox", "docker", "ps", "--format", "{{.Names}}").stdout
    assert seen == "reaper\n"
